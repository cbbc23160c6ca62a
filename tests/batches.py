"""Batches of artificial points, and what workers make of them: cheap, and known beforehand."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from imcsim.arch.load import load_chip
from imcsim.errors import MappingError
from imcsim.sweep.points import points_of
from imcsim.sweep.stages import Batch, Outcomes, Stage


def batches_of(rows, size, seed=0):
    """Cut *rows* into batches of *size* points."""
    chip, stage = load_chip("tim-dnn"), Stage(("estimate",))
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        numbers = range(at, at + len(part))
        keys = tuple(number.to_bytes(16, "big") for number in numbers)
        yield Batch(0, stage, "none", None, b"", chip, points_of(part, numbers), keys, seed)


def evaluate(batch):
    """Twice x is the latency; a point may be told to sleep, to fail, to end its process, or to spoil its batch."""
    messages = []
    for row in batch.points.rows():
        time.sleep(row.get("sleep_s", 0))
        messages.append("x: must be less than 1000, got more" if row["x"] > 1000 else None)
        if row.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if row.get("spoils"):
            raise MappingError("x: must fit, got a point that spoils its batch")
        if "mark" in row:
            Path(row["mark"], f"{row['x']}-{time.time_ns()}").touch()
    latency_ns = np.where([message is None for message in messages], 2.0 * batch.points.columns["x"], np.nan)
    return Outcomes({"latency_ns": latency_ns}, tuple(messages), 0.0)


def work(batch):
    """Keep a core busy for as long as each point says, in processor time."""
    for row in batch.points.rows():
        end = time.process_time() + row["work_s"]
        while time.process_time() < end:
            sum(range(1000))
    return Outcomes({"latency_ns": np.zeros(len(batch.points))}, (None,) * len(batch.points), 0.0)
