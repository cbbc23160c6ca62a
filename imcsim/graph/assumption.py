"""Bits that nobody told, for a network whose shapes alone are known: what a user says under ``assume``.

A text of keys, ``W=ternary,A=2``: how many bits the weights and the activations of every layer have, with others for
the first layers (those that read the network's input) and the last ones (whose outputs no further layer reads), as
published networks have them:

    W, A              every layer; both are needed
    W.first, A.first  the first layers; A.first is 8 where nothing is said, as pixels have
    W.last, A.last    the last layers
    first, last       weights and activations of these: ``first=8`` is ``W.first=8,A.first=8``
    zeros             share of zeros in the weights' planes, or ``weights``: that of the weights that are there

Weights are ``binary``, ``ternary`` or have a number of bits, whose magnitude is one plane a bit. Activations are that,
too; with a number of bits they have no sign where no number is below 0, as behind a ReLU, nor has the network's input;
``u4`` and ``s4`` say which.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np

from imcsim.errors import ConfigError
from imcsim.graph.formats import BINARY, TERNARY, Format, signed, unsigned
from imcsim.ternary import PlaneSum

Array = np.ndarray
Place = Literal["first", "middle", "last"]
"""Of a layer in the network; one that is both first and last is first."""

MOST_BITS = 16
ZEROS_OF_TERNARY = 0.4
"""Share of zeros of ternary weights where nothing is said: that of the networks told by their shapes that are shipped.

Ternary weight networks (Li, Zhang, Liu, 2016, arXiv:1605.04711) come to 42 % for normally distributed weights.
"""

ZEROS_OF_BITS = 0.5
"""The same of each bit of a magnitude: magnitudes that are spread evenly."""

TWN_DELTA = 0.7
"""Ternary weight networks, section 2.3: weights within 0.7 times the mean magnitude become 0."""

MOST_NAMES = 12
"""So many layers are named in a text."""

KEYS = ("W", "A", "first", "last", "W.first", "A.first", "W.last", "A.last", "zeros")


@dataclass(frozen=True)
class Assumption:
    """The bits of a network, place by place."""

    weights: Mapping[Place, str]
    """``binary``, ``ternary`` or a number of bits."""

    activations: Mapping[Place, str]
    """What the layers there read: the same, or ``u4``, ``s4``."""

    zeros: float | Literal["weights"] | None = None
    """Share of zeros; None: `ZEROS_OF_TERNARY` or `ZEROS_OF_BITS`."""

    def __str__(self) -> str:
        parts = [f"W={self.weights['middle']}", f"A={self.activations['middle']}"]
        for place in ("first", "last"):
            for letter, told in (("W", self.weights), ("A", self.activations)):
                if told[place] != told["middle"]:
                    parts.append(f"{letter}.{place}={told[place]}")
        return ",".join([*parts, *([] if self.zeros is None else [f"zeros={_number(self.zeros)}"])])

    def planes(self, place: Place, shape: tuple[int, ...], numbers: Array | None, of: str) -> PlaneSum:
        """Return the weights of *shape* of a layer of the network *of*; *numbers* are what is there in their place."""
        n_bits = n_bits_of(self.weights[place])
        if n_bits == 1:
            zeros = 0.0
        elif self.zeros == "weights":
            if numbers is None:
                raise ConfigError(
                    "assume: zeros=weights must be read off weights that are there, got a model without them; give a "
                    "share"
                )
            zeros = zeros_of(numbers, n_bits)
        else:
            zeros = self.zeros if self.zeros is not None else ZEROS_OF_TERNARY if n_bits == 2 else ZEROS_OF_BITS
        return PlaneSum.of_shape(shape, zero_fraction=zeros, of=of, n_planes=max(1, n_bits - 1))


@dataclass(frozen=True)
class Assumed:
    """What was assumed of a graph: beside it, since no figure says how such a network answers."""

    bits: str
    """As an `Assumption` is written."""

    weights: tuple[str, ...]
    """Names of the ops whose weights have assumed bits."""

    inputs: tuple[str, ...]
    """Names of the ops with a product that read assumed codes."""


def assumed_text(bits: str, weights: Sequence[str], inputs: Sequence[str], n_products: int) -> str:
    """Return what was assumed, in words; layers are named where it is not all of *n_products*.

    >>> assumed_text("W=2,A=2", ["a", "b"], ["b"], 2)
    'W=2,A=2: weights of all 2 layers, inputs of 1 of 2 layers (b)'
    """
    parts = []
    for what, layers in (("weights", weights), ("inputs", inputs)):
        if len(layers) == n_products:
            parts.append(f"{what} of all {n_products} layers")
        elif layers:
            more = f", ... {len(layers) - MOST_NAMES} more" if len(layers) > MOST_NAMES else ""
            parts.append(f"{what} of {len(layers)} of {n_products} layers ({', '.join(layers[:MOST_NAMES])}{more})")
    return f"{bits}: {', '.join(parts)}"


def parse_assumption(text: "str | Assumption") -> Assumption:
    """Return what ``W=ternary,A=2`` says; raises ConfigError, one line, for what is no such text.

    >>> str(parse_assumption("W=2, A=4, first=8, zeros=0.3"))
    'W=ternary,A=4,W.first=8,A.first=8,zeros=0.3'
    """
    if isinstance(text, Assumption):
        return text
    if not isinstance(text, str):
        raise ConfigError(f"assume: must be a text such as W=ternary,A=2, got {text!r}")
    told: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else "for example W=ternary,A=2"
            raise ConfigError(f"assume: keys must be {', '.join(KEYS)}, got {key!r}; {hint}")
        if not equals or not value:
            raise ConfigError(f"assume: {key} must have a value, got nothing; for example {key}={_EXAMPLES[key[:1]]}")
        if key in told:
            raise ConfigError(f"assume: {key} must be given once, got {told[key]} and {value}")
        told[key] = value
    for place in ("first", "last"):
        both = [f"{letter}.{place}" for letter in "WA" if f"{letter}.{place}" in told]
        if place in told and both:
            raise ConfigError(f"assume: {place} must stand in place of {both[0]}, got both")
    for key, example in (("W", "ternary"), ("A", "2")):
        if key not in told:
            raise ConfigError(f"assume: must say {key}, got {text!r}; add {key}={example}")
    weights = {place: _weights(told, place) for place in _PLACES}
    activations = {place: _activations(told, place) for place in _PLACES}
    zeros = _zeros(told["zeros"]) if "zeros" in told else None
    if zeros is not None and set(weights.values()) == {"binary"}:
        raise ConfigError(f"assume: zeros must go with weights that can be 0, got W=binary,zeros={told['zeros']}")
    return Assumption(weights, activations, zeros)


def n_bits_of(told: str) -> int:
    """Return how many bits *told* stands for; a ternary digit takes 2."""
    return {"binary": 1, "ternary": 2}.get(told) or int(told.lstrip("us"))


def codes_of(told: str, *, is_positive: bool) -> Format:
    """Return the codes that *told* stands for; *is_positive*: no number is below 0."""
    n_bits = n_bits_of(told)
    if told == "binary" or told == "ternary":
        return BINARY if told == "binary" else TERNARY
    if told.startswith("u") or (is_positive and not told.startswith("s")):
        return unsigned(n_bits)
    return {1: BINARY, 2: TERNARY}.get(n_bits) or signed(n_bits)


def zeros_of(numbers: Array, n_bits: int) -> float:
    """Return the share of zeros in the planes of real *numbers*, all of one layer.

    Ternary ones by the rule of ternary weight networks (`TWN_DELTA`), others on the even grid whose greatest code is
    the greatest magnitude.

    >>> zeros_of(np.array([0.1, -0.2, 1.0, -1.5]), 2)
    0.5
    """
    magnitudes = np.abs(numbers)
    greatest = float(magnitudes.max())
    if n_bits == 2:
        return float(np.mean(magnitudes <= TWN_DELTA * float(magnitudes.mean())))
    codes = np.rint(magnitudes * (((1 << (n_bits - 1)) - 1) / greatest if greatest else 0.0)).astype(np.int32)
    return float(np.mean([np.mean((codes >> p & 1) == 0) for p in range(n_bits - 1)]))


_PLACES: tuple[Place, ...] = ("first", "middle", "last")
_EXAMPLES = {"W": "ternary", "A": "2", "f": "8", "l": "8", "z": "0.4"}
_BITS = re.compile(r"([us]?)([1-9]\d?)")


def _weights(told: Mapping[str, str], place: Place) -> str:
    key = next((key for key in (f"W.{place}", place) if key in told), "W")
    value, found = told[key], _BITS.fullmatch(told[key])
    if value in ("binary", "ternary"):
        return value
    if found is None or found[1] or int(found[2]) > MOST_BITS:
        raise ConfigError(
            f"assume: {key} must be binary, ternary or a number of bits from 1 to {MOST_BITS}, got {value!r}"
            f"{_near(value)}"
        )
    return {1: "binary", 2: "ternary"}.get(int(value), value)


def _activations(told: Mapping[str, str], place: Place) -> str:
    key = next((key for key in (f"A.{place}", place) if key in told), "A")
    if key == "A" and place == "first":
        return "8"
    value, found = told[key], _BITS.fullmatch(told[key])
    if value in ("binary", "ternary"):
        return value
    if found is None or int(found[2]) > MOST_BITS or value == "s1":
        raise ConfigError(
            f"assume: {key} must be binary, ternary or a number of bits from 1 to {MOST_BITS}, u4 or s4, got {value!r}"
            f"{_near(value)}"
        )
    return value


def _zeros(value: str) -> float | Literal["weights"]:
    if value == "weights":
        return "weights"
    try:
        share = float(value)
    except ValueError:
        share = np.nan
    if not 0 <= share < 1:
        raise ConfigError(f"assume: zeros must be a share from 0 to below 1, or weights, got {value!r}")
    return share


def _near(value: str) -> str:
    near = get_close_matches(value, ("binary", "ternary"), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _number(zeros: float | str) -> str:
    return zeros if isinstance(zeros, str) else f"{zeros:g}"
