"""What the trainings of the ternary image networks share: they fit, measure once, write weights and a record.

A ``train.py`` says its own part (epochs, rates, how images are varied) and calls `train`; one seed gives the same
weights on one machine.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import sklearn
import torch
from safetensors.torch import save
from torch import Tensor

from imcsim.quant import packed_state
from imcsim.quant.training import Labelled, accuracy, fit
from imcsim.results import write_whole
from imcsim.workloads import module_beside


def train(
    file: str,
    arguments: argparse.Namespace,
    *,
    held_every: int,
    batch_size: int,
    learning_rate: float,
    augment: Callable[[Tensor, torch.Generator], Tensor],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> None:
    """Train the network of the ``workload.py`` beside *file*, measure it, write weights.safetensors and training.json.

    Args:
        file: the ``train.py``; its folder's name is the workload's.
        arguments: what `parse_arguments` returned.
        held_every: which images pick the epoch, as `train_and_validation` has it.
        batch_size: images of a step.
        learning_rate: the greatest.
        augment: a batch of images, varied.
        memory_format: of the network's weights; part of what the sums are, to the bit.
    """
    name = Path(file).resolve().parent.name
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    workload = module_beside(file, "workload.py")
    fitted, validation = train_and_validation(workload.split("train", arguments.data), held_every)
    net = workload.network().to(memory_format=memory_format)
    start = time.perf_counter()
    accuracies = fit(
        net,
        fitted,
        validation,
        n_epochs=arguments.epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        generator=generator,
        augment=augment,
    )
    seconds = time.perf_counter() - start
    test = accuracy(net, *workload.split("test", arguments.data))
    print(f"best validation {max(accuracies):.4f}  test {test:.4f}  {seconds:.0f} s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.out / "weights.safetensors", save(packed_state(net)))
    record = {
        "workload": name,
        "dataset": workload.DATASET,
        "command": f"python workloads/{name}/train.py --seed {arguments.seed} --epochs {arguments.epochs} "
        f"--threads {arguments.threads}",
        "seed": arguments.seed,
        "n_epochs": arguments.epochs,
        "n_train": len(fitted[0]),
        "n_validation": len(validation[0]),
        "validation_accuracy": max(accuracies),
        "test_accuracy": test,
        "versions": {
            "imcsim": version("imcsim"),
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
    }
    write_whole(arguments.out / "training.json", json.dumps(record, indent=2).encode() + b"\n")


def train_and_validation(labelled: Labelled, held_every: int) -> tuple[Labelled, Labelled]:
    """Return the training set in two parts: every *held_every*-th image, from the first, is for validation."""
    images, labels = labelled
    held = torch.arange(len(images)) % held_every == 0
    return (images[~held], labels[~held]), (images[held], labels[held])


def parse_arguments(
    file: str, description: str | None, *, n_epochs: int, n_threads: int = 1, has_folder: bool = False
) -> argparse.Namespace:
    """Return what the command line of the ``train.py`` *file* says; *has_folder* where its images lie in a folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(data=None)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default 0)")
    parser.add_argument(
        "--epochs", type=int, default=n_epochs, help=f"passes over the training set (default {n_epochs})"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=n_threads,
        help=f"of torch; part of what makes a run repeatable (default {n_threads})",
    )
    if has_folder:
        parser.add_argument("--data", type=Path, help="folder of data sets (default: $IMCSIM_DATA)")
    parser.add_argument(
        "--out", type=Path, default=Path(file).resolve().parent, help="folder to write to (default: beside this file)"
    )
    return parser.parse_args()
