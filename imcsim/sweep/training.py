"""Trained networks of a sweep: each method is trained once, into the sweep's folder, and is a workload from then on."""

import re
from hashlib import blake2b
from pathlib import Path

from imcsim.quant.methods import find_method
from imcsim.sweep.progress import SweepProgress
from imcsim.sweep.spec import Training
from imcsim.train import Settings, train
from imcsim.workloads import Workload

FOLDER = "trained"


def trained(
    workload: Workload, method: str, record: Training, out: Path, data: str | None, progress: SweepProgress
) -> Path:
    """Return the folder of *workload* trained with *method*, which is trained now, or goes on, unless it is there."""
    found, settings = find_method(method), Settings(n_epochs=record.epochs, n_train=record.samples)
    name = f"{workload.name}-{re.sub(r'[^A-Za-z0-9.]+', '-', str(found))}"
    folder = out / FOLDER / f"{name}-{blake2b(repr(settings).encode(), digest_size=4).hexdigest()}"
    if not (folder / "workload.py").is_file():
        train(workload, found, settings, folder, data=data, progress=progress.said)
    return folder.resolve()
