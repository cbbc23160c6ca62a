"""Sweep files: YAML to a `Sweep`, strictly. What is wrong in one is said in a line: the file, the key, what must hold.

A file names a base chip, what varies (`parameters`, or `points` one by one), what must hold (`constraints`), how points
are taken (`sampling`, or a `search`), which engines evaluate them (`engine`, or `stages`), and what is asked of them
(`objectives`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from imcsim.arch.load import dump, load_chip, near, read, said, shipped_chips, shown
from imcsim.arch.spec import Spec
from imcsim.errors import ConfigError, ImcsimError
from imcsim.sweep.expressions import Expression, parse
from imcsim.sweep.listed import points_of_file, points_of_records
from imcsim.sweep.objectives import ENGINES, GIVEN_BY, Objective, find_objective
from imcsim.sweep.parameters import DISTRIBUTIONS, Choices, Distribution, Domain, Parameter, Range, n_steps, steps
from imcsim.sweep.points import Points, Value
from imcsim.sweep.space import (
    MOST_POINTS,
    Method,
    Names,
    Sampling,
    Space,
    figures_of,
    kind_of,
    n_grid,
    points,
    require_few,
    require_key,
    require_values,
)
from imcsim.sweep.stages import Keep, Stage
from imcsim.workloads import find_workload, shipped_workloads

Tree = dict[str, Any]
M = TypeVar("M", bound=BaseModel)

Count = Annotated[int, Field(ge=1, le=1 << 40)]
Seed = Annotated[int, Field(ge=0, le=(1 << 53) - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


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

    n: Annotated[int, Field(ge=2, le=MOST_POINTS)] | None = None
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

    name: Text | None = None
    """What the sweep is called; the file's name by default."""

    description: str = ""
    workload: Any = None
    """Shipped name, path (from the sweep file's folder), or a list of them, which is then a parameter."""

    chip: Text
    """The chip that parameters change: a shipped name or a path."""

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


@dataclass(frozen=True)
class Sweep:
    """A sweep: what varies, what evaluates it, and what is asked."""

    name: str
    description: str
    workload: str
    """As the user wrote it; the first of several, which are a parameter."""

    chip: str
    """As the user wrote it; the chip itself is `space.base`."""

    stages: tuple[Stage, ...]
    objectives: tuple[Objective, ...]
    space: Space
    sampling: Sampling
    seed: int
    search: Search | None
    training: Training | None
    data: str | None
    folder: Path
    """What relative paths begin at."""

    text: str
    """The sweep as YAML with nothing left to defaults; reading it gives an equal sweep."""

    @property
    def workloads(self) -> tuple[str, ...]:
        """Every workload, as the user wrote it."""
        varied = self.space.by_name.get("workload")
        if varied is None:
            return (self.workload,)
        assert isinstance(varied.domain, Choices)
        own = (self.workload,) if varied.when or self.space.listed is not None else ()
        return tuple(dict.fromkeys(map(str, (*own, *varied.domain.values))))

    def points(self) -> Points:
        """Return the points of the sweep, without those of a search."""
        return points(self.space, self.sampling)

    def path_of(self, workload: str) -> str:
        """Return the shipped name, or the absolute path, of a workload that the user wrote."""
        return _beside(self.folder, workload, shipped_workloads())

    def normalised(self) -> str:
        """Return `text`."""
        return self.text


def load_sweep(path: str | Path) -> Sweep:
    """Return the sweep of a file. Raises `ConfigError`, one line, for whatever the file does not hold."""
    path = Path(path)
    label = str(path)
    if "\0" in label:
        raise ConfigError(f"{label!r}: must be a sweep file; no file has such a name")
    if path.is_dir():
        raise ConfigError(f"{label}: must be a sweep file, got a folder")
    if not path.exists():
        raise ConfigError(f"{label}: no such file")
    return sweep_from(read(path, label, "sweep file"), label, path.parent, name=path.stem)


def sweep_from(tree: Mapping[str, Any], label: str, folder: str | Path, *, name: str = "sweep") -> Sweep:
    """Return the sweep of *tree*, as `load_sweep` does of a file.

    Args:
        tree: What a sweep file holds.
        label: What messages begin with, such as the file.
        folder: What relative paths begin at.
        name: What the sweep is called where *tree* does not say.
    """
    try:
        return _sweep(dict(tree), Path(folder), name)
    except ImcsimError as error:
        raise ConfigError(f"{label}: {error}") from None


def _sweep(tree: Tree, folder: Path, name: str) -> Sweep:
    for key, value in tree.items():
        if value is None and key in SweepFile.model_fields:
            raise ConfigError(f"{key}: must have a value, got nothing; leave the key out for the default")
    file = _checked(SweepFile, tree, "")
    base = _about("chip", lambda: load_chip(_beside(folder, file.chip, shipped_chips())))
    stages = _stages(file)
    objectives = _objectives(file.objectives, stages)
    workloads = _workloads(file, folder)
    listed, parameters = _parameters(file, workloads, folder)
    for parameter in parameters:
        _about("points" if listed else "parameters", lambda p=parameter: require_key(p.name, base))
        _about("points" if listed else "parameters", lambda p=parameter: require_values(p))
    _require_quantizer(parameters)
    workload = _base_workload(workloads, parameters, folder)
    idle: dict[str, Value] = {"workload": workload, "seed": file.seed, "mapping.batch": 1}
    kinds = {key: kind_of((value,)) for key, value in idle.items()}
    kinds |= {p.name: kind_of(p.domain.values) if isinstance(p.domain, Choices) else "number" for p in parameters}
    names = Names(base, kinds)
    parameters = tuple(_with_condition(parameter, file.parameters, names) for parameter in parameters)
    constraints = _constraints(file.constraints, names, stages)
    space = Space(base, parameters, constraints, idle, listed)
    _ = space.ordered  # refuses circles
    search, sampling = _search(file, space), _sampling(file, space)
    training = _training(file, parameters, stages)
    text = dump(_normalised(file, tree, name, stages))
    return Sweep(
        name=file.name or name,
        description=file.description,
        workload=workload,
        chip=file.chip,
        stages=stages,
        objectives=objectives,
        space=space,
        sampling=sampling,
        seed=file.seed,
        search=search,
        training=training,
        data=file.data,
        folder=folder,
        text=text,
    )


# --- reading records --------------------------------------------------------------------------------------------


def _checked(model: type[M], tree: object, key: str) -> M:
    """Return *tree* as a *model*; raises ConfigError, about the *key* that it stands under."""
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
                what = f"missing; {'a sweep' if model is SweepFile else key} needs it"
            else:
                what = said(problem, problem["loc"], model)
            problems.append(f"{path}: {what}")
        more = f" (and {len(problems) - 1} more: {' | '.join(problems[1:5])})" if len(problems) > 1 else ""
        raise ConfigError(f"{where}{problems[0]}{more}") from None


def _about(key: str, do: Any) -> Any:
    """Return what *do* gives; a ConfigError of its own is about *key*."""
    try:
        return do()
    except ImcsimError as error:
        raise ConfigError(f"{key}: {error}") from None


def _beside(folder: Path, name: str, shipped: tuple[str, ...]) -> str:
    """Return *name* where it is shipped, else its path: from *folder*, or from the working folder."""
    if name in shipped or "\0" in name:
        return name
    for path in (folder / name, Path(name)):
        if path.exists():
            return str(path.resolve())
    return name


def _list(value: object, key: str, what: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key}: must be a list of {what}, got {shown(value)}")
    if not value:
        raise ConfigError(f"{key}: must hold at least one of {what}, got an empty list")
    return list(value)


# --- engines, stages, objectives --------------------------------------------------------------------------------


def _engines(value: object, key: str) -> tuple[str, ...]:
    if value == "all":
        return ENGINES
    given = [value] if isinstance(value, str) else _list(value, key, "engines")
    for engine in given:
        if engine not in ENGINES:
            words = (*ENGINES, "all")
            hint = near(engine, words) if isinstance(engine, str) else ""
            raise ConfigError(f"{key}: must be among {', '.join(words)}, got {shown(engine)}{hint}")
    if len(set(given)) < len(given):
        raise ConfigError(f"{key}: must name every engine once, got {', '.join(given)}")
    return tuple(engine for engine in ENGINES if engine in given)


def _stages(file: SweepFile) -> tuple[Stage, ...]:
    if file.stages is None:
        engines = _engines("estimate" if file.engine is None else file.engine, "engine")
        return (Stage(engines, None, file.samples if "execute" in engines else None),)
    if file.engine is not None:
        raise ConfigError("stages: must stand in place of engine, got both")
    records = _list(file.stages, "stages", "stages")
    stages = []
    for i, tree in enumerate(records, start=1):
        key = f"stages: {i}"
        record = _checked(StageRecord, tree, key)
        engines = _engines(record.engine, f"{key}: engine")
        if i < len(records) and record.keep is None:
            raise ConfigError(f"{key}: keep: must say which points go on to the next stage, got nothing")
        if i == len(records) and record.keep is not None:
            raise ConfigError(f"{key}: keep: must not be given for the last stage, got {shown(record.keep)}")
        if record.samples is not None and "execute" not in engines:
            raise ConfigError(f"{key}: samples: must go with execute, got {', '.join(engines)}")
        n_samples = record.samples or file.samples if "execute" in engines else None
        stages.append(Stage(engines, _keep(record.keep, f"{key}: keep"), n_samples))
    return tuple(stages)


def _keep(value: object, key: str) -> Keep | None:
    if value is None or value == "front":
        return value
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1]) / 100
        except ValueError:
            share = math.nan
        if 0 < share < 1:
            return share
    elif isinstance(value, bool) or not isinstance(value, int | float):
        pass
    elif (isinstance(value, int) and value >= 1) or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ConfigError(f"{key}: must be a number of points, a share such as 10%, or front, got {shown(value)}")


def _objectives(given: object, stages: tuple[Stage, ...]) -> tuple[Objective, ...]:
    objectives: list[Objective] = []
    for name in _list(given, "objectives", "objectives"):
        if not isinstance(name, str):
            raise ConfigError(f"objectives: must be names, got {shown(name)}")
        objective = find_objective(name)
        if objective.figure in [other.figure for other in objectives]:
            raise ConfigError(f"objectives: must name everything once, got {objective.figure} twice")
        objectives.append(objective)
        _require_given(objective.figure, stages, f"objectives: {name}")
    so_far: set[str] = set()
    for i, stage in enumerate(stages, start=1):
        so_far |= set(stage.engines)
        if stage.keep is not None and not any(objective.given_by(so_far) for objective in objectives):
            asked = ", ".join(objective.name for objective in objectives)
            raise ConfigError(
                f"stages: {i}: keep: must have an objective that {' or '.join(stage.engines)} gives, got {asked}"
            )
    return tuple(objectives)


def _require_given(figure: str, stages: tuple[Stage, ...], where: str) -> None:
    """Raise ConfigError unless an engine of *stages* gives *figure*."""
    engines = [engine for engine in ENGINES if any(engine in stage.engines for stage in stages)]
    if not any(figure in GIVEN_BY[engine] for engine in engines):
        givers = [engine for engine in ENGINES if figure in GIVEN_BY[engine]]
        raise ConfigError(
            f"{where}: must be a figure that {' or '.join(engines)} gives, got one that {' or '.join(givers)} gives; "
            f"add {givers[0]} to the engines"
        )


# --- parameters -------------------------------------------------------------------------------------------------


def _workloads(file: SweepFile, folder: Path) -> list[str]:
    """Return the workloads at the top of the file, none where it has none."""
    if file.workload is None:
        return []
    names = [file.workload] if isinstance(file.workload, str) else _list(file.workload, "workload", "workloads")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"workload: must be a name or a path, or a list of them, got {shown(name)}")
    return names


def _base_workload(workloads: list[str], parameters: Sequence[Parameter], folder: Path) -> str:
    """Return the workload of points that say none; raises ConfigError for one that is not there."""
    varied: list[str] = []
    for parameter in parameters:
        if parameter.name == "workload":
            assert isinstance(parameter.domain, Choices)
            varied = [str(value) for value in parameter.domain.values]
    if not workloads and not varied:
        raise ConfigError("workload: missing; a sweep needs it")
    for name in (*workloads, *varied):
        _about("workload", lambda name=name: find_workload(_beside(folder, name, shipped_workloads())))
    return (*workloads, *varied)[0]


def _parameters(file: SweepFile, workloads: list[str], folder: Path) -> tuple[Points | None, tuple[Parameter, ...]]:
    """Return the points that are given one by one, if so, and the parameters."""
    if file.points is not None:
        for key in ("parameters", "sampling", "search"):
            if getattr(file, key) is not None:
                raise ConfigError(f"points: must stand in place of {key}, got both")
        if len(workloads) > 1:
            raise ConfigError(
                "points: must name the workload of each point where there are several, got a list beside it"
            )
        if isinstance(file.points, str):
            listed = _about("points", lambda: points_of_file(Path(_beside(folder, file.points, ())), file.points))
        else:
            listed = _about("points", lambda: points_of_records(_list(file.points, "points", "points")))
        return listed, tuple(_of_column(name, listed) for name in listed.columns)
    given = {} if file.parameters is None else file.parameters
    if not isinstance(given, Mapping):
        raise ConfigError(f"parameters: must be a mapping of names to values, got {shown(given)}")
    if len(workloads) > 1:
        if "workload" in given:
            raise ConfigError("parameters: workload: must not be given beside a list under workload, got both")
        given = {"workload": workloads} | dict(given)
    if not given:
        raise ConfigError("parameters: must name at least one, got none; a sweep needs parameters or points")
    return None, tuple(
        Parameter(name, _about(f"parameters: {name}", lambda v=v: _domain(v))) for name, v in given.items()
    )


def _of_column(name: str, listed: Points) -> Parameter:
    column = listed.columns[name][listed.has[name]] if name in listed.has else listed.columns[name]
    return Parameter(name, Choices(tuple(dict.fromkeys(column.tolist()))), is_listed=True)


def _domain(given: object) -> Domain:
    """Return what a parameter can be, from a list or a record."""
    if isinstance(given, list):
        return Choices(_values(given))
    if not isinstance(given, Mapping):
        hint = f"; write [{given}]" if isinstance(given, bool | int | float | str) else ""
        raise ConfigError(f"must be a list of values or a record, got {shown(given)}{hint}")
    record = _checked_record(given)
    if record.values is not None:
        _require_only(given, {"values", "when"}, "values")
        return Choices(_values(record.values))
    return _distribution(record, given) if record.distribution else _range(record, given)


def _checked_record(given: Mapping[str, Any]) -> ParameterRecord:
    for key, value in given.items():
        if value is None:
            raise ConfigError(f"{key}: must have a value, got nothing")
    return _checked(ParameterRecord, given, "")


def _require_only(given: Mapping[str, Any], allowed: set[str], of: str) -> None:
    for key in given:
        if key not in allowed:
            others = sorted(allowed - {of, "when"})
            may = f"; it takes {', '.join(others)}" if others else ""
            raise ConfigError(f"{key}: must not be given beside {of}, got {shown(given[key])}{may}")


def _values(given: object) -> tuple[Value, ...]:
    """Return a list of values, of one kind and each once."""
    values = _list(given, "values", "values") if not isinstance(given, list) or given else []
    if not values:
        raise ConfigError("must hold at least one value, got an empty list")
    seen: dict[Value, None] = {}
    for value in values:
        require_value(value)
        if kind_of((value,)) != kind_of((values[0],)):
            raise ConfigError(f"must be values of one kind, got {shown(values[0])} and {shown(value)}")
        if value in seen:
            raise ConfigError(f"must hold every value once, got {shown(value)} twice")
        seen[value] = None
    return tuple(seen)


def require_value(value: object) -> None:
    """Raise ConfigError unless *value* is one that a point can have."""
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f"must be a number, text, true or false, got {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"must be finite, got {shown(value)}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"must be less than 2**63, got {shown(value)}")


def _range(record: ParameterRecord, given: Mapping[str, Any]) -> Domain:
    _require_only(given, {"low", "high", "scale", "n", "step", "whole", "when"}, "low")
    if record.low is None or record.high is None:
        raise ConfigError(
            "must have values, or low and high, or a distribution, got " + ", ".join(given or ["nothing"])
        )
    low, high = given["low"], given["high"]
    for end in (low, high):
        require_value(end)
    if not low < high:
        raise ConfigError(f"low: must be less than high ({high}), got {low}")
    is_log = record.scale == "log"
    if is_log and low <= 0:
        raise ConfigError(f"low: must be greater than 0 on a log scale, got {low}")
    has_whole_ends = all(isinstance(end, int) or (record.whole and end == int(end)) for end in (low, high))
    if record.whole and not has_whole_ends:
        raise ConfigError(f"whole: must have whole numbers as low and high, got {low} and {high}")
    if record.n is None and record.step is None:
        is_whole = has_whole_ends if record.whole is None else record.whole
        return Range(int(low), int(high), is_log, True) if is_whole else Range(float(low), float(high), is_log, False)
    if record.n is not None and record.step is not None:
        raise ConfigError("step: must stand in place of n, got both")
    if record.step is not None:
        least = 1 if is_log else 0
        if record.step <= least:
            raise ConfigError(f"step: must be greater than {least}, got {given['step']}")
        if (n := n_steps(low, high, record.step, is_log=is_log)) > MOST_POINTS:
            raise ConfigError(f"step: must make at most {MOST_POINTS} values, got {n}")
    numbers = steps(low, high, step=given.get("step"), n=record.n, is_log=is_log)
    if record.whole or (record.whole is None and has_whole_ends and all(number == int(number) for number in numbers)):
        return Choices(tuple(dict.fromkeys(round(number) for number in numbers.tolist())))
    return Choices(tuple(numbers.tolist()))


def _distribution(record: ParameterRecord, given: Mapping[str, Any]) -> Distribution:
    assert record.distribution is not None
    family = DISTRIBUTIONS[record.distribution]
    _require_only(given, {"distribution", *family.needs, "low", "high", "whole", "when"}, "distribution")
    for key in family.needs:
        if getattr(record, key) is None:
            raise ConfigError(f"{key}: missing; a {record.distribution} distribution needs {', '.join(family.needs)}")
    low, high = record.low, record.high
    if low is not None and high is not None and not low < high:
        raise ConfigError(f"low: must be less than high ({high:g}), got {low:g}")
    positive = {
        "normal": ("sd",),
        "log-normal": ("median", "sigma"),
        "exponential": ("mean",),
        "log-uniform": ("low",),
    }
    for key in positive.get(record.distribution, ()):
        if not getattr(record, key) > 0:
            raise ConfigError(f"{key}: must be greater than 0, got {getattr(record, key):g}")
    if record.mode is not None and low is not None and high is not None and not low <= record.mode <= high:
        raise ConfigError(f"mode: must be from low ({low:g}) to high ({high:g}), got {record.mode:g}")
    made = Distribution(
        record.distribution, tuple(getattr(record, key) for key in family.needs), low, high, bool(record.whole)
    )
    if not made.mass > 0:
        raise ConfigError(f"low: must leave some of the distribution up to high, got {shown(low)} and {shown(high)}")
    if record.whole and low is not None and high is not None and math.ceil(low) > math.floor(high):
        raise ConfigError(f"whole: must have a whole number from low to high, got {low:g} and {high:g}")
    return made


def _require_quantizer(parameters: Sequence[Parameter]) -> None:
    """Raise ConfigError for options of a quantizer where none is named, or where no named one has them."""
    options = [parameter for parameter in parameters if parameter.name.startswith("quantizer.")]
    if not options:
        return
    named = next((parameter for parameter in parameters if parameter.name == "quantizer"), None)
    if named is None:
        raise ConfigError(f"parameters: {options[0].name}: must go with a quantizer, got none; name it under quantizer")
    from imcsim.quant.methods import find_method  # brings in torch

    assert isinstance(named.domain, Choices)
    methods = [find_method(str(value)) for value in named.domain.values]
    for parameter in options:
        option = parameter.name.removeprefix("quantizer.")
        known = tuple(dict.fromkeys(name for method in methods for name in type(method).__dataclass_fields__))
        if option not in known:
            names = ", ".join(str(value) for value in named.domain.values)
            raise ConfigError(f"parameters: {parameter.name}: no such option of {names}{near(option, known)}")


def _with_condition(parameter: Parameter, given: Mapping[str, Any] | None, names: Names) -> Parameter:
    record = (given or {}).get(parameter.name)
    if not isinstance(record, Mapping) or "when" not in record:
        return parameter
    where = f"parameters: {parameter.name}: when"
    when = parse(record["when"], where, names.find)
    if figures_of(when):
        raise ConfigError(f"{where}: must not ask for results, which come later, got {figures_of(when)[0]}")
    return Parameter(parameter.name, parameter.domain, when)


def _constraints(given: object, names: Names, stages: tuple[Stage, ...]) -> tuple[Expression, ...]:
    if not isinstance(given, list | tuple):
        raise ConfigError(f"constraints: must be a list of texts, got {shown(given)}")
    rules = []
    for text in given:
        if not isinstance(text, str):
            raise ConfigError(f"constraints: must be texts, got {shown(text)}")
        rule = parse(text, "constraints", names.find)
        for figure in figures_of(rule):
            _require_given(figure, stages, f"constraints: {text!r}: {figure}")
        rules.append(rule)
    return tuple(rules)


# --- how points are taken ---------------------------------------------------------------------------------------


def _sampling(file: SweepFile, space: Space) -> Sampling:
    if file.search is not None:
        if file.sampling is not None:
            raise ConfigError("search: must stand in place of sampling, got both")
        return Sampling()
    record = _checked(SamplingRecord, {} if file.sampling is None else file.sampling, "sampling")
    if record.method == "grid":
        if record.n is not None:
            raise ConfigError(f"sampling: n: must not be given for a grid, which has every point, got {record.n}")
        if space.listed is None:
            require_few(n_grid(space))
    else:
        if record.n is None:
            raise ConfigError(f"sampling: n: missing; {record.method} needs it")
        if record.n > MOST_POINTS:
            raise ConfigError(f"sampling: n: must be at most {MOST_POINTS}, got {record.n}")
    return Sampling(record.method, record.n, record.seed)


def _search(file: SweepFile, space: Space) -> Search | None:
    if file.search is None:
        return None
    for parameter in space.parameters:
        if isinstance(parameter.domain, Distribution):
            raise ConfigError(
                f"parameters: {parameter.name}: must be a list or a range in a search, got a distribution; "
                "it says how points are drawn"
            )
    return _checked(Search, file.search, "search")


def _training(file: SweepFile, parameters: Sequence[Parameter], stages: tuple[Stage, ...]) -> Training | None:
    if file.training is None:
        return None
    if not any(parameter.name == "quantizer" for parameter in parameters):
        raise ConfigError("training: must have something to train, got no quantizer among the parameters")
    return _checked(Training, file.training, "training")


# --- the file written anew --------------------------------------------------------------------------------------


def _normalised(file: SweepFile, tree: Tree, name: str, stages: tuple[Stage, ...]) -> Tree:
    """Return the tree of a file that says the same, with its keys in order and its engines as stages."""
    made: Tree = {"name": file.name or name}
    for key in ("description", "workload", "chip"):
        if key in tree:
            made[key] = tree[key]
    made["stages"] = [_stage_tree(stage) for stage in stages]
    for key in ("parameters", "points", "constraints", "objectives", "sampling", "search", "seed", "data", "training"):
        if key in tree:
            made[key] = list(tree[key]) if isinstance(tree[key], tuple) else tree[key]
    return made


def _stage_tree(stage: Stage) -> Tree:
    tree: Tree = {"engine": list(stage.engines)}
    if stage.keep is not None:
        tree["keep"] = stage.keep
    if stage.n_samples is not None:
        tree["samples"] = stage.n_samples
    return tree
