"""Train fashion-ternary-cnn on for the chip that ``workload.py`` names; write weights.safetensors and training.json.

    python workloads/fashion-ternary-cnn-count4-l32/train.py --seed 0
    python workloads/fashion-ternary-cnn-count4-l32/train.py --seed 0 --control

The first trains with the tiles' behaviour in the forward pass; the second does the same without it and writes
control.safetensors and control.json, so that what the first wins can be told from what more training wins. Takes about
five minutes an epoch on one core, the control three. Both start from the shipped weights of fashion-ternary-cnn. The
epoch is picked on a part of the training set, each network running as it was trained; the test set is used once, at
the end.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numba
import sklearn
import torch
from safetensors.torch import save
from torch import nn

import imcsim
from imcsim.quant import packed_state
from imcsim.quant.training import accuracy, fit
from imcsim.results import write_whole
from imcsim.workloads import module_beside

HERE = Path(__file__).resolve().parent
NAME = HERE.name

_beginning = module_beside(__file__, "../fashion-ternary-cnn/train.py")
augment = _beginning.augment
train_and_validation = _beginning.train_and_validation
"""The parts of the training that is carried on, so that no validation image was ever trained on."""

BATCH_SIZE = 128
LEARNING_RATE = 0.004


def main() -> None:
    """Train, measure, write."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    workload = module_beside(__file__, "workload.py")
    train, validation = train_and_validation(workload.split("train", arguments.data))
    chip = imcsim.load_chip(workload.CHIP, overrides=workload.CHANGES)
    plain = workload.start()
    tuned = plain if arguments.control else imcsim.for_chip(plain, chip, workload.example_input())
    tuned = tuned.to(memory_format=torch.channels_last)
    start = time.perf_counter()
    accuracies = fit(
        tuned,
        train,
        validation,
        n_epochs=arguments.epochs,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        generator=torch.Generator().manual_seed(arguments.seed),
        augment=augment,
        say=lambda line: print(line, flush=True),
    )
    seconds = time.perf_counter() - start
    net = workload.network()
    net.load_state_dict(tuned.state_dict())
    test = workload.split("test", arguments.data)
    on_chip = accuracy(imcsim.for_chip(net, chip, workload.example_input()), *test)
    ideal = accuracy(net, *test)
    print(f"best validation {max(accuracies):.4f}  test on the chip {on_chip:.4f}  ideal {ideal:.4f}  {seconds:.0f} s")
    record = {
        "workload": NAME,
        "dataset": workload.DATASET,
        "command": f"python workloads/{NAME}/train.py --seed {arguments.seed} --epochs {arguments.epochs} "
        f"--threads {arguments.threads}" + (" --control" if arguments.control else ""),
        "started_from": "fashion-ternary-cnn",
        "chip": workload.CHIP,
        "changes": workload.CHANGES,
        "tiles_in_forward_pass": not arguments.control,
        "seed": arguments.seed,
        "n_epochs": arguments.epochs,
        "n_train": len(train[0]),
        "n_validation": len(validation[0]),
        "validation_accuracy": max(accuracies),
        "validation_accuracy_of_epoch": accuracies,
        "test_accuracy": ideal,
        "test_accuracy_on_chip": on_chip,
        "versions": {
            "imcsim": version("imcsim"),
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
    }
    write(arguments.out, "control" if arguments.control else "", net, record)


def write(folder: Path, name: str, net: nn.Module, record: dict) -> None:
    """Write weights and record into *folder*, under the *name* of a control where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name or 'weights'}.safetensors", save(packed_state(net)))
    write_whole(folder / f"{name or 'training'}.json", json.dumps(record, indent=2).encode() + b"\n")


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of order and augmentation (default 0)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training set (default 3)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; part of what makes a run repeatable (default 1)"
    )
    parser.add_argument("--control", action="store_true", help="train without the tiles' behaviour")
    parser.add_argument("--data", type=Path, help="folder of data sets (default: $IMCSIM_DATA)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this file)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
