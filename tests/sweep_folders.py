"""Folders of sweeps, as imcsim sweep would leave them, with numbers made up."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from imcsim.report.sweep_tables import step_front

OBJECTIVES = {
    "latency": {"name": "latency", "figure": "latency_ns", "is_maximized": False},
    "energy_pJ": {"name": "energy_pJ", "figure": "energy_pJ", "is_maximized": False},
    "accuracy": {"name": "accuracy", "figure": "accuracy", "is_maximized": True},
}


def front_of(frame, objectives):
    """Which lines no other is better than in all *objectives*, one by one."""
    signs = [-1.0 if OBJECTIVES[name]["is_maximized"] else 1.0 for name in objectives]
    values = frame[objectives].to_numpy(dtype=float) * signs
    is_whole = np.isfinite(values).all(axis=1)
    others = values[is_whole]
    return [
        bool(whole and not ((others <= row).all(axis=1) & (others < row).any(axis=1)).any())
        for row, whole in zip(values, is_whole, strict=True)
    ]


def write_sweep(folder: Path, parameters, figures, *, kind="parquet", changes=None, **summary) -> Path:
    """Write the folder of a sweep: *parameters* and *figures* are columns."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(next(iter((parameters | figures).values()), []))
    frame = pd.DataFrame({"point": np.arange(n), **parameters, **figures})
    frame["engine"], frame["status"] = "estimate", "done"
    frame["on_front"] = front_of(frame, list(figures)) if n else np.zeros(0, dtype=bool)
    frame["message"] = pd.Series([None] * n, dtype=object)
    for name, values in (changes or {}).items():
        frame[name] = values
    if kind == "parquet":
        frame.to_parquet(folder / "points.parquet")
    else:
        frame["on_front"] = np.where(frame["on_front"], "true", "false")
        frame.to_csv(folder / "points.csv", index=False)
    said = {"name": "small", "chip": "tim-dnn", "workloads": ["digits-ternary-cnn"], "seed": 0, "version": "1",
            "objectives": [OBJECTIVES[name] for name in figures], "parameters": list(parameters)}  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(said | summary))
    return folder


def many(folder, n=60_000, **more):
    rng = np.random.default_rng(0)
    columns = {"tile.count_max": rng.choice([4, 8, 16], n), "main_memory.bits_per_ns": np.exp(rng.normal(6, 1, n)),
               "mapping.policy": rng.choice(["least_time", "search"], n)}  # fmt: skip
    latency = 1e7 / columns["main_memory.bits_per_ns"] * rng.uniform(0.5, 2, n)
    accuracy = 0.9 - rng.random(n) / columns["tile.count_max"]
    frame = {"latency": latency, "accuracy": accuracy}
    at = step_front(latency, accuracy, False, True)
    on_front = np.zeros(n, dtype=bool)
    on_front[at] = True
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"point": np.arange(n), **columns, **frame, "engine": "estimate", "status": "done",
                          "on_front": on_front, "message": pd.Series([None] * n, dtype=object)})  # fmt: skip
    table.to_parquet(folder / "points.parquet")
    said = {"name": "many", "chip": "tim-dnn", "objectives": [OBJECTIVES[name] for name in frame],
            "parameters": list(columns)}  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(said | more))
    return folder
