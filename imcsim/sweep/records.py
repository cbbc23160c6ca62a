"""The records of a sweep file as frozen pydantic models; they are read strictly, with one line for what is wrong."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from imcsim.arch.load import near, said, shown
from imcsim.arch.spec import Spec
from imcsim.errors import ConfigError, ImcsimError

M = TypeVar("M", bound=BaseModel)

MOST_POINTS = 100_000_000
MOST_VALUES = 1_000_000
"""Of one range with steps."""

Count = Annotated[int, Field(ge=1, le=1 << 40)]
Seed = Annotated[int, Field(ge=0, le=(1 << 53) - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Method = Literal["grid", "random", "latin-hypercube", "sobol"]


class Search(Spec):
    """Points that an optimizer asks for, one after the other, in place of `sampling`."""

    sampler: Literal["nsga2", "tpe"] = "nsga2"
    """NSGA-II, or a tree-structured Parzen estimator; of Optuna."""

    evaluations: Count
    """Points that are evaluated in all."""

    population: Annotated[int, Field(ge=2, le=1 << 20)] = 40
    """Points of one generation."""

    prune: bool = False
    """Whether points that an early stage shows to be poor do not go on to the next."""

    seed: Seed = 0
    storage: Text | None = None
    """SQLAlchemy URL of the database that Optuna keeps the search in, which machines may share; a file by default."""


class Training(Spec):
    """How each method of ``quantizer`` is trained before a network is executed."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 6
    samples: Annotated[int, Field(ge=24, le=1 << 40)] | None = None
    """Training images; all of them by default."""


class StageRecord(Spec):
    """One of `stages`."""

    engine: Any
    """estimate, simulate, execute, all, or a list of them."""

    keep: Any = None
    """Points that go on to the next stage: a number, a share such as 10%, or front."""

    samples: Count | None = None
    """Samples of the test set that are executed."""


class SamplingRecord(Spec):
    """How points are taken from the space."""

    method: Method = "grid"
    n: Count | None = None
    """How many different points are drawn; a grid has all."""

    seed: Seed = 0


class ParameterRecord(Spec):
    """What a parameter can be: values, a range (low, high), or a distribution."""

    values: Any = None
    """One of these."""

    low: Number | None = None
    """Least number of a range; what a distribution is cut off at."""

    high: Number | None = None
    """Greatest number, included."""

    scale: Literal["linear", "log"] | None = None
    """Whether differences or ratios count; linear by default."""

    n: Annotated[int, Field(ge=2, le=MOST_VALUES)] | None = None
    """So many numbers from low to high."""

    step: Number | None = None
    """From one number to the next; on a log scale the factor between them."""

    whole: bool | None = None
    """Whether numbers are whole; by default where both ends are, and steps keep them so."""

    distribution: Literal["uniform", "log-uniform", "normal", "log-normal", "triangular", "exponential"] | None = None
    """What numbers are drawn from; not in a grid."""

    mean: Number | None = None
    sd: Number | None = None
    """Standard deviation of a normal distribution."""

    median: Number | None = None
    sigma: Number | None = None
    """Standard deviation of the natural logarithm of a log-normal distribution."""

    mode: Number | None = None
    """Where a triangular distribution is highest."""

    when: Text | None = None
    """Points for which this does not hold do not have the parameter."""


class SweepFile(Spec):
    """What a sweep file holds."""

    name: Text = "sweep"
    """What the sweep is called; the file's name by default."""

    description: str = ""
    """What it is for, in a line or more."""

    folder: Text | None = None
    """What relative paths begin at; by default where the file is, or else the working folder."""

    workload: Any = None
    """Shipped name, path, or a list of them, which is then a parameter."""

    chip: Text
    """The chip that parameters change: a shipped name or a path."""

    assume: Text | None = None
    """Bits of layers of real numbers, W=ternary,A=2, for points that have none of their own."""

    engine: Any = None
    """estimate (by default), simulate, execute, all, or a list of them."""

    stages: Any = None
    """Engines one after the other, in place of `engine`; the points that are kept go on."""

    parameters: Any = None
    """Dotted key of the chip, or another parameter, to a list of values or a record."""

    points: Any = None
    """In place of `parameters`: the points, each a mapping, or the path of a CSV file with their names on top."""

    constraints: Any = ()
    """What must hold for a point to be evaluated or, where it asks for figures, to be among the results."""

    objectives: Any
    """What is asked of every point: latency, energy, edp, area, accuracy, throughput ..."""

    sampling: Any = None
    """How points are taken: a grid by default."""

    search: Any = None
    """Points that an optimizer asks for, in place of `sampling`."""

    samples: Count | None = None
    """Samples of the test set that are executed; all of them by default."""

    seed: Seed = 0
    """Of what is drawn while points are evaluated."""

    data: Text | None = None
    """Folder of data sets."""

    training: Any = None
    """How each method of ``quantizer`` is trained."""


def checked(model: type[M], tree: object, key: str) -> M:
    """Return *tree*, what stands under *key*, as a *model*; raises ConfigError, one line, for what does not suit it."""
    where = f"{key}: " if key else ""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}must be a mapping, got {shown(tree)}")
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            path = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                what = f"no such key{f' in {key}' if key else ''}{near(path, tuple(model.model_fields))}"
            elif problem["type"] == "missing":
                what = f"missing; {key or 'a sweep'} needs it"
            else:
                what = said(problem, problem["loc"], model)
            problems.append(f"{path}: {what}")
        more = f" (and {len(problems) - 1} more: {' | '.join(problems[1:5])})" if len(problems) > 1 else ""
        raise ConfigError(f"{where}{problems[0]}{more}") from None


@contextmanager
def about(key: str) -> Iterator[None]:
    """Say of an `ImcsimError` that is raised inside that it is about *key*."""
    try:
        yield
    except ImcsimError as error:
        raise ConfigError(f"{key}: {error}") from None


def listed(value: object, key: str, what: str) -> list[Any]:
    """Return *value*, what stands under *key*, as a list of *what* that is not empty; raises ConfigError otherwise."""
    where = f"{key}: " if key else ""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}must be a list of {what}, got {shown(value)}")
    if not value:
        raise ConfigError(f"{where}must hold at least one, got an empty list")
    return list(value)
