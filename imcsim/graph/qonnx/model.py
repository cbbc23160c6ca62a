"""A model in the operators of ONNX, whatever it was read from: nodes in dependency order, and constants as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcsim.graph.assumption import Assumption
from imcsim.graph.steps import Shape

Array = np.ndarray


@dataclass(frozen=True)
class Node:
    """One operator of the model."""

    kind: str
    domain: str
    name: str
    """Its own, or that of what it makes."""

    inputs: tuple[str, ...]
    """Names of tensors; an empty one is left out."""

    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    """Numbers, texts, tuples of them, and arrays; of a kind that is not read, None."""


@dataclass(frozen=True)
class Input:
    """A tensor that goes in."""

    name: str
    shape: Shape
    """With the batch, which is that of all inputs; 1 where the model leaves the batch open."""


@dataclass(frozen=True, eq=False)
class Model:
    """What is known of a model before its operators are looked at."""

    origin: str
    """Where it is from, as messages say it: the path of a file."""

    opset: int
    inputs: tuple[Input, ...]
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]
    """In dependency order."""

    outputs: tuple[str, ...]
    """Names of tensors."""

    missing: frozenset[str] = frozenset()
    """Constants whose shape alone is known; ones stand in their place."""

    assumption: Assumption | None = None
    """What was assumed of it (`imcsim.graph.qonnx.assume`)."""
