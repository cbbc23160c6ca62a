"""What is known of a paper's figures: one file for the fit, another for the predictions that are held against them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from imcsim.arch.load import GREATEST_FILE_BYTES, parsed
from imcsim.arch.spec import NotNegative, Positive, Sourced
from imcsim.errors import ConfigError

FOLDER = Path(__file__).parent / "tim-dnn"
CALIBRATION = FOLDER / "calibration.yaml"
"""The only targets that the fit reads."""

VALIDATION = FOLDER / "validation.yaml"
ACCELERATORS = FOLDER / "accelerators.yaml"


class Target(Sourced):
    """A figure of the paper, and how closely it is known."""

    printed: Positive
    half_digit: NotNegative
    """Half of the last digit that is known: the figure lies within this of the true one."""

    keys: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Keys of the chip file that state the figure itself; empty where it is the outcome of many."""

    @property
    def within(self) -> float:
        """The factor within which the figure is known.

        >>> Target(printed=2.0, half_digit=0.5, basis="recalled", source="one digit").within
        1.25
        """
        return 1 + self.half_digit / self.printed


class Accelerator(Sourced):
    """An accelerator of the comparison table."""

    tops: Positive
    tops_per_w: Positive
    tops_per_mm2: Positive
    node_nm: Positive


Record = TypeVar("Record", bound=Sourced)


def read_targets(path: str | Path) -> dict[str, Target]:
    """Return the targets of a file by their quantity; raises ConfigError, one line, for what it must not hold."""
    return read_records(path, Target)


def read_records(path: str | Path, kind: type[Record]) -> dict[str, Record]:
    """Return the records of *kind* that a YAML file names; raises ConfigError for what it must not hold."""
    label = Path(path).name
    try:
        text = Path(path).read_bytes()[:GREATEST_FILE_BYTES].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be a file of targets that can be read, got {error}") from None
    tree = parsed(text, label)
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{label}: must be a mapping of quantities to what is known of them, got {tree!r}")
    found = {}
    for quantity, told in tree.items():
        try:
            found[quantity] = kind.model_validate(told)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, (quantity, *problem["loc"])))
            what = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
            raise ConfigError(f"{label}: {place}: {what}, got {problem['input']!r}") from None
    return found
