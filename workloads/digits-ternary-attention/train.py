"""Train the network of ``workload.py`` on scikit-learn's digits; write weights.safetensors and training.json.

    python workloads/digits-ternary-attention/train.py --seed 0

Takes some minutes on one core. One seed gives the same weights on one machine. The epoch is picked on a
part of the training set; the test set is used once, at the end.
"""

import torch
from torch import Tensor

from imcsim.quant.training import Labelled, shifted
from imcsim.workloads import module_beside

HELD_EVERY = 6
_shared = module_beside(__file__, "../train_ternary_cnn.py")


def main() -> None:
    """Train, measure, write."""
    arguments = _shared.parse_arguments(__file__, __doc__, n_epochs=60)
    _shared.train(__file__, arguments, held_every=HELD_EVERY, batch_size=32, learning_rate=0.01, augment=augment)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return *images* moved by up to one pixel in each direction."""
    return shifted(images, generator, most=1)


def train_and_validation(labelled: Labelled) -> tuple[Labelled, Labelled]:
    """Return the training set in two parts: every 6th image, from the first, is for validation."""
    parts: tuple[Labelled, Labelled] = _shared.train_and_validation(labelled, HELD_EVERY)
    return parts


if __name__ == "__main__":
    main()
