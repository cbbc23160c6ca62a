"""Train one of the float networks; write weights.safetensors and training.json into its folder.

    python workloads/train_float_cnn.py digits-float-cnn --epochs 30
    python workloads/train_float_cnn.py mnist-float-cnn --epochs 3 --data FOLDER
    python workloads/train_float_cnn.py fashion-float-cnn --epochs 6 --data FOLDER

Takes seconds for the digits, minutes for the others, on one core. One seed gives the same weights on one machine. The
epoch is picked on a part of the training set; the test set is used once, at the end.
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save

from imcsim.quant.training import accuracy, fit
from imcsim.results import write_whole
from imcsim.workloads import module_beside

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Train, measure, write."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    folder = HERE / arguments.name
    workload = module_beside(__file__, f"{arguments.name}/workload.py")
    images, labels = workload.split("train", arguments.data)
    held = torch.arange(len(images)) % 12 == 0
    net = workload.network()
    accuracies = fit(
        net,
        (images[~held], labels[~held]),
        (images[held], labels[held]),
        n_epochs=arguments.epochs,
        batch_size=64,
        learning_rate=0.005,
        generator=torch.Generator().manual_seed(arguments.seed),
    )
    test = accuracy(net, *workload.split("test", arguments.data))
    print(f"best validation {max(accuracies):.4f}  test {test:.4f}")
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    write_whole(folder / "weights.safetensors", save(state))
    record = {
        "workload": arguments.name,
        "dataset": workload.DATASET,
        "command": f"python workloads/train_float_cnn.py {arguments.name} --seed {arguments.seed} "
        f"--epochs {arguments.epochs}",
        "seed": arguments.seed,
        "n_epochs": arguments.epochs,
        "n_train": int((~held).sum()),
        "n_validation": int(held.sum()),
        "validation_accuracy": max(accuracies),
        "test_accuracy": test,
        "versions": {"imcsim": version("imcsim"), "python": platform.python_version(), "torch": torch.__version__},
    }
    write_whole(folder / "training.json", json.dumps(record, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["digits-float-cnn", "mnist-float-cnn", "fashion-float-cnn"])
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default 0)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training set (default 30)")
    parser.add_argument("--data", type=Path, help="folder of data sets; otherwise IMCSIM_DATA")
    return parser.parse_args()


if __name__ == "__main__":
    main()
