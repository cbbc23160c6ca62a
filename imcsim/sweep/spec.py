"""Sweep files: YAML to a `Sweep`, strictly. What is wrong in one is said in a line: the file, the key, what must hold.

A file names a base chip, what varies (`parameters`, or `points` one by one), what must hold (`constraints`), how points
are taken (`sampling`, or a `search`), which engines evaluate them (`engine`, or `stages`), and what is asked of them
(`objectives`). `imcsim.sweep.records` describes every key.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from imcsim.arch.load import dump, load_chip, near, read, shipped_chips, shown, unit_of
from imcsim.arch.spec import Chip
from imcsim.errors import ConfigError
from imcsim.graph.assumption import parse_assumption
from imcsim.sweep.domains import domain_of
from imcsim.sweep.expressions import Expression, Kind, parse
from imcsim.sweep.listed import points_of_file, points_of_records
from imcsim.sweep.names import Names, examples, figures_of, keys_of, require_key, require_values
from imcsim.sweep.network import assumption_text, is_of_assumption
from imcsim.sweep.objectives import ENGINES, FIGURES, GIVEN_BY, SHORT, Objective, find_objective
from imcsim.sweep.parameters import Choices, Distribution, Parameter, kind_of
from imcsim.sweep.points import Points, Value
from imcsim.sweep.records import (
    MOST_POINTS,
    ParameterRecord,
    SamplingRecord,
    Search,
    StageRecord,
    SweepFile,
    Training,
    about,
    checked,
    listed,
)
from imcsim.sweep.space import Sampling, Space, choices_of, n_grid, require_few
from imcsim.sweep.stages import Keep, Stage
from imcsim.workloads import find_workload, shipped_workloads

Tree = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep: what varies, what evaluates it, and what is asked."""

    name: str
    description: str
    workload: str
    """Shipped name, or path from `folder`, of points that name none; the first where all points do."""

    chip: str
    """Shipped name, or absolute path, of `space.base`."""

    stages: tuple[Stage, ...]
    objectives: tuple[Objective, ...]
    space: Space
    seed: int
    search: Search | None
    training: Training | None
    assume: str | None
    """Bits of layers of real numbers, of points that name none."""

    data: str | None
    """Absolute path of the folder of data sets."""

    text: str
    """The sweep as YAML, with nothing left to defaults; reading it, from wherever, gives an equal sweep.

    Where the points come from a file, a comment on top holds what it contained: changed points are another sweep.
    """

    folder: Path = field(compare=False)
    """What relative paths of workloads begin at."""

    @property
    def first_assumption(self) -> str | None:
        """The assumed bits of the first values of the parameters that say them; None where nothing is assumed."""
        mine = [each for each in self.space.parameters if is_of_assumption(each.name)]
        return assumption_text({each.name: _some_values(each)[0] for each in mine}, self.assume)

    @property
    def workloads(self) -> tuple[str, ...]:
        """Every workload that a point can have."""
        varied = self.space.by_name.get("workload")
        values = varied.domain.values if varied is not None and isinstance(varied.domain, Choices) else ()
        return tuple(dict.fromkeys((self.workload, *map(str, values))))

    def normalised(self) -> str:
        """Return `text`."""
        return self.text


def load_sweep(path: str | Path) -> Sweep:
    """Return the sweep of a file. Raises `ConfigError`, one line, for whatever the file does not hold."""
    path = Path(path)
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r}: must be a sweep file; no file has such a name")
    if path.is_dir():
        raise ConfigError(f"{path}: must be a sweep file, got a folder")
    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    return sweep_from(read(path, str(path), "sweep file"), str(path), path.parent, name=path.stem)


def sweep_from(tree: Mapping[str, Any], label: str, folder: str | Path, *, name: str = "sweep") -> Sweep:
    """Return the sweep of *tree*, as `load_sweep` does of a file.

    Args:
        tree: What a sweep file holds.
        label: What messages begin with, such as the file.
        folder: What relative paths begin at.
        name: What the sweep is called where *tree* does not say.
    """
    with about(label):
        return _sweep(dict(tree), label, Path(folder), name)


def _sweep(tree: Tree, label: str, folder: Path, name: str) -> Sweep:
    for key, value in tree.items():
        if value is None and key in SweepFile.model_fields:
            raise ConfigError(f"{key}: must have a value, got nothing; leave the key out for the default")
    file = checked(SweepFile, {"name": name} | tree, "")
    folder = folder / file.folder if file.folder else folder
    with about("chip"):
        chip = _absolute(file.chip, folder, shipped_chips())
        base = load_chip(chip)
    stages = _stages(file)
    objectives = _objectives(file.objectives, stages)
    given, parameters = _parameters(file, folder)
    with about("parameters" if given is None else "points"):
        for parameter in parameters:
            require_key(parameter.name, base)
            require_values(parameter)
        _require_quantizer(parameters)
    _require_assumption(file, parameters, stages)
    workloads = _workloads(file, parameters, given)
    paths = [workload for workload in workloads if workload not in shipped_workloads()]
    if not file.folder:
        folder = next((start for start in (folder, Path()) if all(_is_there(start / path) for path in paths)), folder)
    with about("workload"):
        for workload in workloads:
            find_workload(_absolute(workload, folder, shipped_workloads()))
    idle: dict[str, Value] = {"workload": workloads[0], "seed": file.seed, "mapping.batch": 1}
    names = Names(base, _kinds(idle, parameters))
    parameters = tuple(_with_condition(parameter, file.parameters, names) for parameter in parameters)
    constraints = _constraints(file.constraints, names, stages)
    sampling = _sampling(file)
    space = Space(base, parameters, constraints, idle, given, sampling, label)
    _require_possible(space, has_search=file.search is not None)
    search = None if file.search is None else checked(Search, file.search, "search")
    training = _training(file, parameters)
    data = None if file.data is None else _absolute(file.data, folder, ())
    points_file = Path(_absolute(file.points, folder, ())) if isinstance(file.points, str) else None
    normal = {
        "name": file.name,
        "description": file.description,
        "folder": str(folder.resolve()) if paths else None,
        "workload": file.workload,
        "assume": file.assume,
        "chip": chip,
        "stages": [_stage_tree(stage) for stage in stages],
        "parameters": file.parameters,
        "points": str(points_file) if points_file else file.points,
        "constraints": [rule.text for rule in constraints],
        "objectives": [objective.name for objective in objectives],
        "sampling": _sampling_tree(sampling) if search is None and given is None else None,
        "search": None if search is None else search.model_dump(),
        "seed": file.seed,
        "data": data,
        "training": None if training is None else training.model_dump(exclude_none=True),
    }
    return Sweep(
        name=file.name,
        description=file.description,
        workload=workloads[0],
        chip=chip,
        stages=stages,
        objectives=objectives,
        space=space,
        seed=file.seed,
        search=search,
        training=training,
        assume=file.assume,
        data=data,
        text=_comment(points_file) + dump({key: _plain(value) for key, value in normal.items() if value is not None}),
        folder=folder.resolve(),
    )


# --- paths and workloads ----------------------------------------------------------------------------------------


def _absolute(name: str, folder: Path, shipped: Sequence[str]) -> str:
    """Return *name* where it is shipped or nothing is there, else its path: from *folder*, or the working folder."""
    starts = () if name in shipped else (folder, Path())
    return next((str((start / name).resolve()) for start in starts if _is_there(start / name)), name)


def _is_there(path: Path) -> bool:
    return "\0" not in str(path) and path.exists()


def _workloads(file: SweepFile, parameters: Sequence[Parameter], given: Points | None) -> tuple[str, ...]:
    """Return every workload, that of points without one of their own first."""
    top = _top_workloads(file)
    varied = next((parameter for parameter in parameters if parameter.name == "workload"), None)
    if varied is None:
        if not top:
            raise ConfigError("workload: missing; a sweep needs it")
        return tuple(top)
    assert isinstance(varied.domain, Choices)
    is_partial = "workload" in given.has if given is not None else "when" in (file.parameters or {}).get("workload", ())
    if is_partial and not top:
        raise ConfigError("workload: missing; points that have none of their own need it")
    return tuple(dict.fromkeys((*top, *map(str, varied.domain.values))))


def _top_workloads(file: SweepFile) -> list[str]:
    """Return the workloads at the top of the file, none where it has none."""
    if file.workload is None:
        return []
    names = [file.workload] if isinstance(file.workload, str) else listed(file.workload, "workload", "workloads")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"workload: must be a name or a path, or a list of them, got {shown(name)}")
    return names


# --- engines, stages, objectives --------------------------------------------------------------------------------


def _engines(value: object, key: str) -> tuple[str, ...]:
    if value == "all":
        return ENGINES
    given = [value] if isinstance(value, str) else listed(value, key, "engines")
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
        if file.samples is not None and "execute" not in engines:
            raise ConfigError(f"samples: must go with execute, got {', '.join(engines)}")
        return (Stage(engines, None, file.samples),)
    if file.engine is not None:
        raise ConfigError("stages: must stand in place of engine, got both")
    records = listed(file.stages, "stages", "stages")
    stages = []
    for i, tree in enumerate(records, start=1):
        key = f"stages: {i}"
        record = checked(StageRecord, tree, key)
        engines = _engines(record.engine, f"{key}: engine")
        if file.search is not None and record.keep is not None:
            raise ConfigError(f"{key}: keep: must not be given in a search, got {shown(record.keep)}; see its prune")
        if i < len(records) and record.keep is None and file.search is None:
            raise ConfigError(f"{key}: keep: must say which points go on to the next stage, got nothing")
        if i == len(records) and record.keep is not None:
            raise ConfigError(f"{key}: keep: must not be given for the last stage, got {shown(record.keep)}")
        if record.samples is not None and "execute" not in engines:
            raise ConfigError(f"{key}: samples: must go with execute, got {', '.join(engines)}")
        n_samples = (record.samples or file.samples) if "execute" in engines else None
        stages.append(Stage(engines, _keep(record.keep, f"{key}: keep"), n_samples))
    if file.samples is not None and not any("execute" in stage.engines for stage in stages):
        raise ConfigError("samples: must go with execute, got no stage that executes")
    return tuple(stages)


def _keep(value: object, key: str) -> Keep | None:
    """Return how many points go on: a number, or a share below 1 from 0.1 or 10%."""
    if value is None:
        return None
    if value == "front":
        return "front"
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1]) / 100
        except ValueError:
            share = math.nan
        if 0 < share < 1:
            return share
    is_number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**53
    if is_number or (isinstance(value, float) and 0 < value < 1):
        return value  # type: ignore[return-value]
    raise ConfigError(f"{key}: must be a number of points, a share such as 10%, or front, got {shown(value)}")


def _stage_tree(stage: Stage) -> Tree:
    tree = {"engine": list(stage.engines), "keep": stage.keep, "samples": stage.n_samples}
    return {key: value for key, value in tree.items() if value is not None}


def _objectives(given: object, stages: tuple[Stage, ...]) -> tuple[Objective, ...]:
    objectives: list[Objective] = []
    for name in listed(given, "objectives", "objectives"):
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
                f"stages: {i}: keep: must have an objective that {_either(so_far)} gives to choose by, got {asked}"
            )
    return tuple(objectives)


def _require_given(figure: str, stages: tuple[Stage, ...], where: str) -> None:
    """Raise ConfigError unless an engine of *stages* gives *figure*."""
    engines = {engine for stage in stages for engine in stage.engines}
    if not any(figure in GIVEN_BY[engine] for engine in engines):
        givers = [engine for engine in ENGINES if figure in GIVEN_BY[engine]]
        raise ConfigError(
            f"{where}: must be a figure that {_either(engines)} gives, got one that {_either(givers)} gives; "
            f"add {givers[0]} to the engines"
        )


def _either(engines: Collection[str]) -> str:
    return " or ".join(engine for engine in ENGINES if engine in engines)


# --- parameters -------------------------------------------------------------------------------------------------


def _parameters(file: SweepFile, folder: Path) -> tuple[Points | None, tuple[Parameter, ...]]:
    """Return the points that are given one by one, if so, and the parameters."""
    workloads = _top_workloads(file)
    if file.points is not None:
        for key in ("parameters", "sampling", "search"):
            if getattr(file, key) is not None:
                raise ConfigError(f"points: must stand in place of {key}, got both")
        if len(workloads) > 1:
            raise ConfigError("points: must each name their workload where there are several, got a list of workloads")
        with about("points"):
            if isinstance(file.points, str):
                given = points_of_file(Path(_absolute(file.points, folder, ())), file.points)
            else:
                given = points_of_records(listed(file.points, "", "points"))
        return given, tuple(_of_column(name, given) for name in given.columns)
    varied = {} if file.parameters is None else file.parameters
    if not isinstance(varied, Mapping):
        raise ConfigError(f"parameters: must be a mapping of names to values, got {shown(varied)}")
    if len(workloads) > 1:
        if "workload" in varied:
            raise ConfigError("parameters: workload: must not be given beside a list under workload, got both")
        varied = {"workload": workloads} | dict(varied)
    if not varied:
        raise ConfigError("parameters: must name at least one, got none; a sweep needs parameters or points")
    parameters = []
    for name, domain in varied.items():
        with about(f"parameters: {name}"):
            parameters.append(Parameter(str(name), domain_of(domain)))
    return None, tuple(parameters)


def _of_column(name: str, given: Points) -> Parameter:
    column = given.columns[name][given.has[name]] if name in given.has else given.columns[name]
    return Parameter(name, Choices(tuple(dict.fromkeys(column.tolist()))))


def _require_quantizer(parameters: Sequence[Parameter]) -> None:
    """Raise ConfigError for options of a quantizer where none is named, or where no named one has them."""
    options = [parameter.name for parameter in parameters if parameter.name.startswith("quantizer.")]
    if not options:
        return
    named = next((parameter for parameter in parameters if parameter.name == "quantizer"), None)
    if named is None:
        raise ConfigError(f"{options[0]}: must go with a quantizer, got none; name it under quantizer")
    from imcsim.quant.methods import find_method  # brings in torch
    from imcsim.quant.tailored import layer_and_option

    assert isinstance(named.domain, Choices)
    methods = [find_method(str(value)) for value in named.domain.values]
    asked = ", ".join(str(value) for value in named.domain.values)
    for name in options:
        with about("quantizer"):
            layer, option = layer_and_option(name.removeprefix("quantizer."))
        has = [method.options() if layer is None else method.layer_options() for method in methods]
        known = tuple(dict.fromkeys(option for some in has for option in some))
        if option not in known:
            raise ConfigError(
                f"{name}: must be an option of {'' if layer is None else 'single layers of '}{asked} "
                f"({', '.join(known) or 'none'}), got {option!r}{near(option, known)}"
            )


def _require_assumption(file: SweepFile, parameters: Sequence[Parameter], stages: Sequence[Stage]) -> None:
    """Raise ConfigError for bits that are no assumption, or where values or a method are asked for, too."""
    mine = [parameter for parameter in parameters if is_of_assumption(parameter.name)]
    if not mine and file.assume is None:
        return
    if any("execute" in stage.engines for stage in stages):
        raise ConfigError("assume: must go with estimate or simulate alone, got execute, which needs values")
    if any(parameter.name == "quantizer" for parameter in parameters):
        raise ConfigError("assume: must go without a quantizer, which says its bits, got both")
    values = {parameter.name: _some_values(parameter) for parameter in mine}
    first = {name: some[0] for name, some in values.items()}
    for name, some in values.items() or {"assume": [file.assume]}.items():
        for value in some:
            parse_assumption(assumption_text(first | {name: value}, file.assume) or "")


def _some_values(parameter: Parameter) -> list[Any]:
    domain = parameter.domain
    return list(domain.values) if isinstance(domain, Choices) else examples(domain)


def _kinds(idle: Mapping[str, Value], parameters: Sequence[Parameter]) -> dict[str, Kind]:
    """Return of what kind the values are that a condition may ask for, those of the chip apart."""
    kinds = {name: kind_of((value,)) for name, value in idle.items()}
    for parameter in parameters:
        domain = parameter.domain
        kinds[parameter.name] = kind_of(domain.values) if isinstance(domain, Choices) else "number"
    return kinds


def _with_condition(parameter: Parameter, given: Mapping[str, Any] | None, names: Names) -> Parameter:
    record = (given or {}).get(parameter.name)
    if not isinstance(record, Mapping) or "when" not in record:
        return parameter
    where = f"parameters: {parameter.name}: when"
    when = parse(record["when"], where, names.find)
    if asked := figures_of(when):
        raise ConfigError(f"{where}: must not ask for results, which come later, got {asked[0]}")
    return replace(parameter, when=when)


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


def _sampling(file: SweepFile) -> Sampling:
    if file.sampling is None:
        return Sampling()
    if file.search is not None:
        raise ConfigError("search: must stand in place of sampling, got both")
    record = checked(SamplingRecord, file.sampling, "sampling")
    if record.method == "grid":
        if record.n is not None:
            raise ConfigError(f"sampling: n: must not be given for a grid, which has every point, got {record.n}")
    elif record.n is None:
        raise ConfigError(f"sampling: n: missing; {record.method} needs it")
    elif record.n > MOST_POINTS:
        raise ConfigError(f"sampling: n: must be at most {MOST_POINTS}, got {record.n}")
    return Sampling(record.method, record.n, record.seed)


def _sampling_tree(sampling: Sampling) -> Tree:
    return {key: value for key, value in asdict(sampling).items() if value is not None}


def _require_possible(space: Space, *, has_search: bool) -> None:
    """Raise ConfigError for conditions in a circle, and for parameters that do not suit how points are taken."""
    assert space.ordered  # raises
    if has_search:
        for parameter in space.parameters:
            if isinstance(parameter.domain, Distribution):
                raise ConfigError(
                    f"parameters: {parameter.name}: must be a list or a range in a search, got a distribution; "
                    "it says how points are drawn"
                )
    elif space.listed is None and space.sampling.method == "grid":
        for parameter in space.parameters:
            choices_of(parameter)
        require_few(n_grid(space))


def _training(file: SweepFile, parameters: Sequence[Parameter]) -> Training | None:
    if file.training is None:
        return None
    if not any(parameter.name == "quantizer" for parameter in parameters):
        raise ConfigError("training: must have something to train, got no quantizer among the parameters")
    return checked(Training, file.training, "training")


def _comment(points_file: Path | None) -> str:
    """Return a line of YAML that changes with what is in the file of points; nothing where there is none."""
    if points_file is None:
        return ""
    with points_file.open("rb") as file:
        return f"# points: sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}\n"


def _plain(value: Any) -> Any:
    """Return *value* with lists in the place of tuples, and dicts in that of other mappings, as YAML writes them."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


# --- the schema -------------------------------------------------------------------------------------------------


def sweep_schema(chip: Chip | None = None) -> Tree:
    """Return the JSON Schema of a sweep file, for editors; with a *chip*, its keys are offered as parameters.

    >>> sweep_schema()["required"]
    ['chip', 'objectives']
    """
    names = {"type": "string"}
    value = {"type": ["number", "string", "boolean"]}
    values = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    engine = {"enum": [*ENGINES, "all"]}
    engines = {"anyOf": [engine, {"type": "array", "items": {"enum": list(ENGINES)}, "minItems": 1}]}
    share = {"type": "string", "pattern": r"^\s*[0-9.]+\s*%\s*$"}
    keep = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "front"}, share]}
    objective = {"enum": [*SHORT, *FIGURES]}

    schema = SweepFile.model_json_schema()
    records = {model.__name__: model.model_json_schema() for model in (StageRecord, SamplingRecord, Search, Training)}
    record = ParameterRecord.model_json_schema()
    parameter = {"anyOf": [values, {"$ref": "#/$defs/ParameterRecord"}]}
    offered = {} if chip is None else {key: {**parameter, "description": _described(key)} for key in keys_of(chip)}

    schema["$defs"] = records | {"ParameterRecord": record}
    schema["properties"]["parameters"] |= {"type": "object", "properties": offered, "additionalProperties": parameter}
    record["properties"]["values"] |= values
    records["StageRecord"]["properties"]["engine"] |= engines
    records["StageRecord"]["properties"]["keep"] |= keep
    schema["properties"]["engine"] |= engines
    schema["properties"]["workload"] |= {"anyOf": [names, {"type": "array", "items": names, "minItems": 1}]}
    schema["properties"]["objectives"] |= {"type": "array", "items": objective, "minItems": 1, "uniqueItems": True}
    schema["properties"]["constraints"] |= {"type": "array", "items": names}
    point = {"type": "object", "additionalProperties": value, "minProperties": 1}
    schema["properties"]["points"] |= {"anyOf": [names, {"type": "array", "items": point, "minItems": 1}]}
    stage = {"$ref": "#/$defs/StageRecord"}
    schema["properties"]["stages"] |= {"type": "array", "items": stage, "minItems": 1}
    for key, name in (("sampling", "SamplingRecord"), ("search", "Search"), ("training", "Training")):
        schema["properties"][key] |= {"$ref": f"#/$defs/{name}"}
    return schema


def _described(key: str) -> str:
    unit = unit_of(key)
    return f"Unit: {unit}." if unit else ""
