"""Train the network of ``workload.py`` on Fashion-MNIST; write weights.safetensors and training.json.

    python workloads/fashion-ternary-cnn/train.py --seed 0

Takes about a quarter of an hour on two cores. One seed gives the same weights on one machine. The epoch is picked on a
part of the training set; the test set is used once, at the end.
"""

import torch
from torch import Tensor

from imcsim.quant.training import Labelled, mirrored
from imcsim.workloads import module_beside

HELD_EVERY = 12
_shared = module_beside(__file__, "../train_ternary_cnn.py")


def main() -> None:
    """Train, measure, write."""
    _shared.train(
        __file__,
        _shared.parse_arguments(__file__, __doc__, n_epochs=14, n_threads=2, has_folder=True),
        held_every=HELD_EVERY,
        batch_size=128,
        learning_rate=0.004,
        augment=augment,
        memory_format=torch.channels_last,
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return *images* with about half of them turned left to right."""
    return mirrored(images, generator).contiguous(memory_format=torch.channels_last)


def train_and_validation(labelled: Labelled) -> tuple[Labelled, Labelled]:
    """Return the training set in two parts: every 12th image, from the first, is for validation.

    A training that carries this one on has to divide the images alike.
    """
    parts: tuple[Labelled, Labelled] = _shared.train_and_validation(labelled, HELD_EVERY)
    return parts


if __name__ == "__main__":
    main()
