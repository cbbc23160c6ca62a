"""Train the spoken digit network, ternary and in float, and write weights.safetensors and training.json.

    python workloads/spoken-digits-ternary-gru/train.py --seed 0

Takes about ten minutes on one core. One seed gives the same weights on one machine; a training that was stopped goes
on where it was. The test set is what the data set's authors recommend (recordings 0 to 4 of each speaker and digit);
the epoch is picked on recordings 5 to 9, and the test set is used once, at the end, for both networks.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from imcsim.quant import packed_state
from imcsim.quant.sequences import fit_sequences
from imcsim.quant.training import Labelled, accuracy
from imcsim.results import write_whole
from imcsim.workloads import module_beside

HERE = Path(__file__).resolve().parent
NAME = HERE.name
BATCH = 64
MOST_SHIFT = 4
"""Frames that a recording is moved by, at most, in training."""


def main() -> None:
    """Train, measure, write."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    workload = module_beside(__file__, "workload.py")
    train, validation = train_and_validation(workload.split("train", arguments.data))
    nets, scores = {}, {}
    makers = {"ternary": workload.network, "float": workload.float_network}
    for kind in [arguments.only] if arguments.only else makers:
        torch.manual_seed(arguments.seed)
        nets[kind] = makers[kind]()
        scores[kind] = fit_sequences(
            nets[kind],
            lambda generator: batches(train, generator),
            lambda net: accuracy(net, *validation),
            n_epochs=arguments.epochs,
            learning_rate=0.004,
            generator=torch.Generator().manual_seed(arguments.seed),
            checkpoint=checkpoint_of(arguments.out, kind),
            say=lambda line, kind=kind: print(f"{kind:8s}{line}", flush=True),
        )
    if arguments.only:
        return
    test = workload.split("test", arguments.data)
    found = {kind: accuracy(net, *test) for kind, net in nets.items()}
    print(found)
    write_whole(arguments.out / "weights.safetensors", save(packed_state(nets["ternary"])))
    record = {
        "workload": NAME,
        "dataset": workload.DATASET,
        "command": f"python workloads/{NAME}/train.py --seed {arguments.seed} --epochs {arguments.epochs} "
        f"--threads {arguments.threads}",
        "seed": arguments.seed,
        "n_epochs": arguments.epochs,
        "n_train": len(train[0]),
        "n_validation": len(validation[0]),
        "n_test": len(test[0]),
        "validation_accuracy": max(scores["ternary"]),
        "test_accuracy": found["ternary"],
        "float_validation_accuracy": max(scores["float"]),
        "float_test_accuracy": found["float"],
        "versions": {"imcsim": version("imcsim"), "python": platform.python_version(), "torch": torch.__version__},
    }
    write_whole(arguments.out / "training.json", json.dumps(record, indent=2).encode() + b"\n")
    for kind in nets:
        checkpoint_of(arguments.out, kind).unlink(missing_ok=True)


def checkpoint_of(folder: Path, kind: str) -> Path:
    """Return the file that a training of one network goes on from."""
    return folder / f"{kind}.checkpoint"


def batches(train: Labelled, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the recordings in a new order, each moved in time by some frames, silence coming in."""
    x, labels = train
    order = torch.randperm(len(x), generator=generator)
    for picks in order[: len(x) // BATCH * BATCH].split(BATCH):
        shifts = torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (len(picks), 1), generator=generator)
        padded = nn.functional.pad(x[picks], (MOST_SHIFT, MOST_SHIFT))
        frames = shifts + MOST_SHIFT + torch.arange(x.shape[-1])  # b t
        yield padded.gather(3, frames[:, None, None, :].expand(-1, x.shape[1], 1, -1)), labels[picks]


def train_and_validation(labelled: Labelled) -> tuple[Labelled, Labelled]:
    """Return the training set in two parts: of each speaker and digit, recordings 5 to 9 are for validation.

    The 45 recordings of one speaker and digit stand together.
    """
    x, labels = labelled
    held = torch.arange(len(x)) % 45 < 5
    return (x[~held], labels[~held]), (x[held], labels[held])


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and shifts (default 0)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training set (default 30)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; part of what makes a run repeatable (default 1)"
    )
    parser.add_argument(
        "--only", choices=["ternary", "float"], help="train this network alone; a run without --only goes on from there"
    )
    parser.add_argument("--data", type=Path, help="folder of data sets (default: $IMCSIM_DATA)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this file)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
