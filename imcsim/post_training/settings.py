"""What post-training quantization is asked for, checked where it is said."""

from dataclasses import dataclass

from imcsim.errors import ConfigError
from imcsim.post_training.activations import parse_range
from imcsim.post_training.weights import Levels

LEAST_BITS, MOST_BITS = 2, 8

ROUNDINGS = ("nearest", "compensated")
CORRECTIONS = ("none", "bias", "statistics", "scale")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the result, beside model and samples."""

    weights: str = "ternary"
    """ternary, binary, or 2 to 8 bits."""

    activations: int = 4
    """Bits of the inputs of layers: unsigned where no sample has a number below 0, otherwise symmetric about 0."""

    edges: int | None = 8
    """Bits of weights and inputs of the layers at both ends: those that no other layer is before, or behind. None: as
    the others."""

    calibration: str = "mse"
    """How clip ranges are found: mse, max, or percentile:P."""

    rounding: str = "compensated"
    """nearest: each weight by itself; compensated: each makes up for those before it (`weights.compensated`)."""

    correction: str = "scale"
    """What is set right by the outputs of the float layer, one number an output.

    none; bias: the mean (Nagel et al., "Data-Free Quantization", ICCV 2019, arXiv:1906.04721, section 4.2); statistics:
    mean and spread, as when a batch norm is measured anew; scale: scale and bias of the least squared difference.
    """

    n_samples: int = 512
    """Calibration samples, drawn by the seed."""

    seed: int = 0

    def __post_init__(self) -> None:
        self.levels(is_edge=False)
        for name in ("activations", "edges"):
            bits = getattr(self, name)
            if bits is not None and not LEAST_BITS <= bits <= MOST_BITS:
                raise ConfigError(f"{name}: must be from {LEAST_BITS} to {MOST_BITS} bits, got {bits}")
        parse_range(self.calibration)
        for name, known in (("rounding", ROUNDINGS), ("correction", CORRECTIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}: must be {', '.join(known)}, got {getattr(self, name)!r}")
        if self.n_samples < 1:
            raise ConfigError(f"calibration samples: must be at least 1, got {self.n_samples}")
        if self.seed < 0:
            raise ConfigError(f"seed: must be 0 or more, got {self.seed}")

    def levels(self, *, is_edge: bool) -> Levels:
        """Return what the weights of a layer may be; raises ConfigError where `weights` says no such thing."""
        if is_edge and self.edges is not None:
            return Levels(self.edges)
        if self.weights in ("ternary", "binary"):
            return Levels(2, is_binary=self.weights == "binary")
        bits = int(self.weights) if self.weights.isdecimal() else 0
        if not LEAST_BITS <= bits <= MOST_BITS:
            raise ConfigError(
                f"weights: must be ternary, binary or {LEAST_BITS} to {MOST_BITS} bits, got {self.weights!r}"
            )
        return Levels(bits)

    def input_bits(self, *, is_edge: bool) -> int:
        """Return how many bits the inputs of a layer take."""
        return self.edges if is_edge and self.edges is not None else self.activations
