"""Train the network of ``workload.py`` on scikit-learn's digits; write weights.safetensors and training.json.

    python workloads/digits-ternary-attention/train.py --seed 0

Takes some minutes on one core. One seed gives the same weights on one machine. The epoch is picked on a
part of the training set; the test set is used once, at the end.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import sklearn
import torch
from safetensors.torch import save
from torch import Tensor

from imcsim.quant import packed_state
from imcsim.quant.training import Labelled, accuracy, fit, shifted
from imcsim.results import write_whole
from imcsim.workloads import module_beside

HERE = Path(__file__).resolve().parent
NAME = HERE.name


def main() -> None:
    """Train, measure, write."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    workload = module_beside(__file__, "workload.py")
    train, validation = train_and_validation(workload.split("train"))
    net = workload.network()
    start = time.perf_counter()
    accuracies = fit(
        net,
        train,
        validation,
        n_epochs=arguments.epochs,
        batch_size=32,
        learning_rate=0.01,
        generator=generator,
        augment=augment,
    )
    seconds = time.perf_counter() - start
    test = accuracy(net, *workload.split("test"))
    print(f"best validation {max(accuracies):.4f}  test {test:.4f}  {seconds:.0f} s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.out / "weights.safetensors", save(packed_state(net)))
    record = {
        "workload": NAME,
        "dataset": workload.DATASET,
        "command": f"python workloads/{NAME}/train.py --seed {arguments.seed} --epochs {arguments.epochs} "
        f"--threads {arguments.threads}",
        "seed": arguments.seed,
        "n_epochs": arguments.epochs,
        "n_train": len(train[0]),
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


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return *images* moved by up to one pixel in each direction."""
    return shifted(images, generator, most=1)


def train_and_validation(labelled: Labelled) -> tuple[Labelled, Labelled]:
    """Return the training set in two parts: every 6th image, from the first, is for validation."""
    images, labels = labelled
    held = torch.arange(len(images)) % 6 == 0
    return (images[~held], labels[~held]), (images[held], labels[held])


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default 0)")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the training set (default 60)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; part of what makes a run repeatable (default 1)"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this file)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
