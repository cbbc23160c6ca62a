"""Chip files: YAML to the model of their kind and back, strictly; includes; overrides (``tile.count_max=10``).

`kind` in a file says which model it becomes (`imcsim.arch.kinds`): a `Chip`, which networks are placed on, or another
`Machine`.

A file may name others under `include`; what it says itself wins, key by key. Where an including file or a user changes
a number in a record without giving the record a new `basis`, the basis becomes `assumed` and the source says who set
it: no changed number passes for a published one. A record of an included file that does not hold is taken away by null.
"""

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from imcsim.arch.spec import Chip, Machine, kinds_of
from imcsim.errors import ConfigError
from imcsim.shipped import shipped_folder

Tree = dict[str, Any]
Key = tuple[str | int, ...]
M = TypeVar("M", bound=Machine)
Origins = dict[Key, str]
"""For every key, the label of the file that set it; an empty label is the user's."""

GREATEST_FILE_BYTES = 1 << 20
ABOUT_SOURCES = {"basis", "source", "within_factor"}


def load_chip(name_or_path: str | Path, overrides: Mapping[str, object] | None = None) -> Chip:
    """Return the chip of a shipped name or of a file, with *overrides* (dotted key to value) laid over it.

    A value given as text is read as YAML reads it. Raises `ConfigError`, one line, for whatever the file or an override
    does not hold, and for a machine that no network can be placed on; `load_machine` returns those too.
    """
    machine, label = loaded(name_or_path, overrides)
    if not isinstance(machine, Chip):
        raise ConfigError(
            f"{label}: kind: must be {' or '.join(kinds_of(Chip))} to place a network on, got {machine.kind}; "
            f"{machine.taken_by} takes it"
        )
    return machine


def load_machine(name_or_path: str | Path, overrides: Mapping[str, object] | None = None) -> Machine:
    """Return what a chip file of any kind describes, as `load_chip` does for chips that networks are placed on.

    Raises `ConfigError`, one line, for whatever the file or an override does not hold.
    """
    return loaded(name_or_path, overrides)[0]


def loaded(name_or_path: str | Path, overrides: Mapping[str, object] | None) -> tuple[Machine, str]:
    """Return what a chip file describes, and what to call the file in messages."""
    path, label = find(name_or_path)
    origins: Origins = {(): label}
    tree = gather(path, label, origins, ())
    read_values = {
        key: scalar(key, value) if isinstance(value, str) else value for key, value in (overrides or {}).items()
    }
    return changed(tree, read_values, origins, label), label


def vary(machine: M, changes: Mapping[str, object]) -> M:
    """Return *machine* with *changes* (dotted key to value) laid over it, checked like the overrides of `load_chip`."""
    kinds = kinds_of(type(machine))
    if changes.get("kind", machine.kind) not in kinds:
        raise ConfigError(f"{machine.name}: kind: must stay {' or '.join(kinds)}, got {shown(changes['kind'])}")
    varied = changed(machine.model_dump(), changes, {(): machine.name}, machine.name)
    assert isinstance(varied, type(machine)), "a kind stands for one model"
    return varied


def changed(tree: Tree, changes: Mapping[str, object], origins: Origins, label: str) -> Machine:
    """Return the machine of *tree* with the user's *changes* laid over it."""
    for key, value in changes.items():
        tree = lay(tree, nested(key, value), "", origins, "set by the user")
    model = model_of(tree.get("kind"), origins.get(("kind",), label))
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(one_line([told(problem, origins, model) for problem in error.errors()], label)) from None


def model_of(kind: object, where: str) -> type[Machine]:
    """Return the model that *kind* stands for; raises ConfigError, about the file at *where*, if there is none."""
    if kind in kinds_of(Chip):
        return Chip
    from imcsim.arch.kinds import KINDS, MODEL_OF_KIND  # the models of other machines take long to load

    model = MODEL_OF_KIND.get(kind) if isinstance(kind, str) else None
    if model is None:
        hint = near(kind, KINDS) if isinstance(kind, str) else ""
        what = f"kind: must be one of {', '.join(KINDS)}, got {shown(kind)}{hint}"
        raise ConfigError(f"{where}: {what}" if where else what)
    return model


def checked_values(key: str, values: list[Any], each: str = "variant") -> list[Any]:
    """Return *values* as the field of a `Chip` at the dotted *key* takes them; raises ConfigError for a bad one.

    What holds between several fields is not checked. The message counts values as *each*.
    """
    try:
        return list(_adapter(key).validate_python(values))
    except ValidationError as error:
        at, what = next(iter(_wrong(key, error).items()))
        raise ConfigError(f"{key}: {each} {at}: {what}") from None


def wrong_values(key: str, values: list[Any]) -> dict[int, str]:
    """Return what is wrong with *values* of the field of a `Chip` at the dotted *key*, by their place.

    Raises ConfigError where there is no such field.
    """
    try:
        _adapter(key).validate_python(values)
    except ValidationError as error:
        return _wrong(key, error)
    return {}


def _wrong(key: str, error: ValidationError) -> dict[int, str]:
    found: dict[int, str] = {}
    for problem in error.errors():
        place = problem["loc"][0]
        if isinstance(place, int) and place not in found:
            found[place] = said(problem, tuple(key.split(".")), Chip)
    return found


@cache
def _adapter(key: str) -> TypeAdapter[list[Any]]:
    """Return what checks a list of values of the field at the dotted *key*; kept, as it takes milliseconds to make."""
    path = tuple(key.split("."))
    for n, step in enumerate(path):
        record = record_at(path[:n], Chip)
        if step not in record.model_fields:
            raise ConfigError(f"{key}: no such field in {record.__name__}{near(step, tuple(record.model_fields))}")
    field = record.model_fields[path[-1]]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(list[kind], config=ConfigDict(strict=True))


def shipped_chips() -> tuple[str, ...]:
    """Return the names of the chips, of all kinds, that come with imcsim."""
    return tuple(sorted(path.stem for path in shipped_folder("arch").glob("*.yaml")))


def dump_chip(machine: Machine) -> str:
    """Return *machine* as the text of a chip file; loading it gives an equal one."""
    return dump(machine.model_dump())


def dump(tree: Tree) -> str:
    """Return *tree* as YAML text; reading it gives an equal one."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes texts with line breaks of any kind in quotes: bare, some of them come back as a space."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(str, _text)


def chip_schema() -> dict[str, Any]:
    """Return the JSON Schema of a chip file of any kind, for editors; descriptions say the units.

    A union that `kind` discriminates. It is written as anyOf: a file that includes another may leave `kind` to it.
    """
    from imcsim.arch.kinds import KINDS, MODELS

    union: Any = MODELS[0]
    for model in MODELS[1:]:
        union |= model
    schema = TypeAdapter(Annotated[union, Field(discriminator="kind")]).json_schema()
    records = schema["$defs"]
    for record in records.values():
        for name, field in record.get("properties", {}).items():
            if unit := unit_of(name):
                field["description"] = f"{field.get('description', '')} Unit: {unit}.".strip()
    names = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    include = names | {"description": "Files or shipped chips that this file changes."}
    for model in MODELS:
        record = records[model.__name__]
        record["properties"]["include"] = include
        record["anyOf"] = [{"required": record.pop("required")}, {"required": ["include"]}]
    schema["anyOf"] = schema.pop("oneOf")
    return schema | {"properties": {"kind": {"enum": list(KINDS)}, "include": include}}


def parse_override(text: str) -> tuple[str, object]:
    """Split ``tile.count_max=10`` into the key and the value, the value as YAML reads it.

    >>> parse_override("tile.count_max=10")
    ('tile.count_max', 10)
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"override: must be KEY=VALUE, got {text!r}; for example tile.count_max=10")
    return key.strip(), scalar(key.strip(), value)


# Files


def find(name_or_path: str | Path) -> tuple[Path, str]:
    """Return the file of a shipped name or path, and what to call it in messages."""
    if isinstance(name_or_path, str) and name_or_path in shipped_chips():
        return shipped(name_or_path)
    path = Path(name_or_path)
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r}: must be a shipped chip or a file; no file has such a name")
    if path.is_dir():
        raise ConfigError(f"{path}: must be a chip file, got a folder")
    if path.is_file():
        return path, str(path)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise ConfigError(f"{path}: no such file{near(path.stem, shipped_chips())}")
    names = ", ".join(shipped_chips())
    raise ConfigError(f"{path}: must be a shipped chip ({names}) or a file{near(path.name, shipped_chips())}")


def shipped(name: str) -> tuple[Path, str]:
    """Return the file of a shipped chip, and what to call it in messages."""
    return shipped_folder("arch") / f"{name}.yaml", f"arch/{name}.yaml"


def gather(path: Path, label: str, origins: Origins, reading: tuple[Path, ...]) -> Tree:
    """Read *path* and what it includes into one tree, the including file on top."""
    path = path.resolve()
    if path in reading:
        circle = " > ".join(step.name for step in [*reading[reading.index(path) :], path])
        raise ConfigError(f"{label}: include: must not lead back to a file that is being read, got {circle}")
    own = read(path, label)
    tree: Tree = {}
    for name in includes(own.pop("include", []), label):
        part, part_label = included(name, path.parent, label)
        # Between two included files the later one wins as it stands: neither changes the other.
        tree = lay(tree, gather(part, part_label, origins, (*reading, path)), None, origins, None)
    return lay(tree, own, label, origins, f"set in {path.name}")


def includes(value: object, label: str) -> list[str]:
    """Return the names under `include`, checked."""
    names: list[str] = []
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{label}: include: must be a file name or a list of them, got {shown(name)}")
        names.append(name)
    return names


def included(name: str, folder: Path, label: str) -> tuple[Path, str]:
    """Return the file that an `include` names: beside the including file, or shipped."""
    beside = folder / name
    if beside.is_file():
        home = shipped_folder("arch").resolve()
        inside = beside.resolve().is_relative_to(home)
        return beside, f"arch/{beside.resolve().relative_to(home).as_posix()}" if inside else str(beside)
    stem = name.removesuffix(".yaml")
    if stem in shipped_chips():
        return shipped(stem)
    raise ConfigError(f"{label}: include: no such file or shipped chip, got {name!r}{near(stem, shipped_chips())}")


def read(path: Path, label: str, kind: str = "chip file") -> Tree:
    """Return the mapping that the file, of this *kind*, holds."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{label}: cannot be read: {error.strerror}") from None
    if len(data) > GREATEST_FILE_BYTES:
        raise ConfigError(f"{label}: must be a {kind} of at most {GREATEST_FILE_BYTES} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label}: must be UTF-8 text, got byte {data[error.start]:#04x} at {error.start}") from None
    tree = parsed(text, label)
    if not isinstance(tree, dict):
        raise ConfigError(f"{label}: must be a mapping of keys to values, got {shown(tree)}")
    return tree


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Of PyYAML's two parsers the compiled one, where it is there: five times as fast."""


DEEPEST = 100
"""Levels of a file's nesting; chips have six."""


class Loader(_SafeLoader):
    """YAML's safe loader without duplicate keys and keys that are no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse keys that are no text, and keys that stand there twice."""
        seen: dict[str, yaml.Mark] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            mark = key_node.start_mark
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"a key must be text, got {shown(key)}", problem_mark=mark)
            if key in seen:
                first = seen[key].line + 1
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands in line {first} too", problem_mark=mark)
            seen[key] = mark
        return super().construct_mapping(node, deep)


def _refuse_excess(text: str) -> None:
    """Refuse aliases, of which a few can stand for billions of keys, and nesting that no stack is deep enough for."""
    depth = 0
    for event in yaml.parse(text, _SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            where: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not read; use include", problem_mark=where)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise yaml.YAMLError("nested too deeply")


def parsed(text: str, label: str) -> Any:
    """Return what *text* means as YAML."""
    try:
        _refuse_excess(text)
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        context = f" ({error.context})" if error.context else ""
        problem = f"{error.problem}{context}".replace("\n", " ")
        raise ConfigError(f"{label}:{line} cannot be read as YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{label}: must be text, got {chr(error.character)!r} at {error.position}") from None
    except (yaml.YAMLError, ValueError) as error:
        first, *_ = str(error).splitlines() or [""]
        raise ConfigError(f"{label}: cannot be read as YAML: {first}") from None


# Overrides


def scalar(key: str, text: str) -> object:
    """Return what *text* means as one YAML value, or as a list of such."""
    value = parsed(text, key)
    if any(isinstance(part, dict | list) for part in (value if isinstance(value, list) else [value])):
        raise ConfigError(f"{key}: must be one value, got {shown(value)}; override its keys one by one")
    return value


def nested(key: str, value: object) -> Tree:
    """Return the tree in which only the dotted *key* stands."""
    first, dot, rest = key.partition(".")
    return {first: nested(rest, value) if dot else value}


def lay(base: Tree, over: Tree, label: str | None, origins: Origins, who: str | None, at: Key = ()) -> Tree:
    """Return *base* with *over* on it, key by key; null takes a record of *base* away.

    Args:
        base: What stands already.
        over: What is laid over it.
        label: The file of *over*, noted in *origins*; None leaves *origins* alone.
        origins: Grows by the keys of *over*.
        who: Who changes numbers, for the source of a record that is changed and gets no new basis; None changes none.
        at: The key of *base* in the whole tree.
    """
    result = dict(base)
    for key, value in over.items():
        here = (*at, key)
        under = result.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            result[key] = lay(under, value, label, origins, who, here)
        else:
            result[key] = value
            if value is None and isinstance(under, dict):
                del result[key]
            if label is not None:
                origins.update(dict.fromkeys(keys_of(value, here), label))
    if who and "basis" in base and "basis" not in over and changes(base, over):
        result["basis"] = "assumed"
        if "source" not in over:
            was = base.get("source")
            result["source"] = was if str(was).startswith(who) else f"{who} (was: {was})"
    return result


def changes(base: Tree, over: Tree) -> bool:
    """Whether *over* changes a value that the source of the record *base* speaks for."""
    for key, value in over.items():
        under = base.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            if "basis" not in under and changes(under, value):
                return True
        elif key not in ABOUT_SOURCES and value != under:
            return True
    return False


def keys_of(value: object, at: Key) -> Iterator[Key]:
    """Yield *at* and every key below it."""
    yield at
    if isinstance(value, dict):
        for key, below in value.items():
            yield from keys_of(below, (*at, key))


# Messages


def told(problem: Any, origins: Origins, root: type[Machine]) -> str:
    """Return one of Pydantic's errors about a *root* in imcsim's form."""
    key: Key = problem["loc"]
    if problem["type"] == "value_error":  # one of our own checks, which names the field
        field, _, what = str(problem["ctx"]["error"]).partition(": ")
        key = (*key, *field.split("."))
    else:
        what = said(problem, key, root)
    label = next(origins[key[:n]] for n in range(len(key), -1, -1) if key[:n] in origins)
    dotted = ".".join(map(str, key))
    return ": ".join(part for part in (label, dotted, what) if part)


def said(problem: Any, key: Key, root: type[BaseModel]) -> str:
    """Return what must hold and what was found."""
    kind, value, limits = problem["type"], problem["input"], problem.get("ctx", {})
    record = record_at(key[:-1], root)
    got = f"got {shown(value)}"
    match kind:
        case "extra_forbidden":
            return f"no such field in {record.__name__}{near(str(key[-1]), tuple(record.model_fields))}"
        case "missing":
            return f"missing; {record.__name__} needs it"
        case "float_type":
            return f"must be a number, {got}{number_help(value)}"
        case "int_type" | "int_from_float" | "int_parsing_size":
            return f"must be a whole number, {got}{number_help(value)}"
        case "bool_type":
            return f"must be true or false, {got}"
        case "string_type":
            return f"must be text, {got}"
        case "tuple_type":
            return f"must be a list, {got}"
        case "too_short":
            return f"must hold at least {limits['min_length']}, got {limits['actual_length']}"
        case "string_too_short":
            return f"must not be empty, {got}"
        case "string_pattern_mismatch":
            return f"must match {limits['pattern']}, {got}"
        case "finite_number":
            return f"must be finite, {got}"
        case "greater_than":
            return f"must be greater than {limits['gt']:.0f}, {got}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:.0f}, {got}"
        case "less_than_equal":
            return f"must be at most {limits['le']:.0f}, {got}"
        case "literal_error":
            allowed = literals(record, key)
            return f"must be one of {', '.join(allowed)}, {got}{near(str(value), allowed)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping, {got}"
        case _:
            return f"{problem['msg'][:1].lower()}{problem['msg'][1:]}, {got}"


def record_at(key: Key, root: type[BaseModel]) -> type[BaseModel]:
    """Return the record that stands at *key* of a *root*, as far as the key leads."""
    record: type[BaseModel] = root
    for step in key:
        field = record.model_fields.get(str(step))
        below = field.annotation if field else None
        if isinstance(below, UnionType):  # Circuit | None
            below = next(part for part in get_args(below) if part is not NoneType)
        if get_origin(below) is dict:
            below = get_args(below)[1]
        if get_origin(below) is tuple:
            below = get_args(below)[0]
        if isinstance(below, type) and issubclass(below, BaseModel):
            record = below
    return record


def literals(record: type[BaseModel], key: Key) -> tuple[str, ...]:
    """Return the values that a field of few values takes, or each of a list of them, at the end of *key*."""
    field = next(str(step) for step in reversed(key) if not isinstance(step, int))
    kind: Any = record.model_fields[field].annotation
    if NoneType in get_args(kind):  # a choice, or nothing
        kind = next(part for part in get_args(kind) if part is not NoneType)
    return tuple(map(str, get_args(get_args(kind)[0] if get_origin(kind) is tuple else kind)))


def number_help(value: object) -> str:
    """Say how to write what was meant as a number."""
    if isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if not isinstance(value, str):
        return ""
    try:
        meant = float(value)
    except ValueError:
        return ""
    if not math.isfinite(meant):
        return ""
    written = yaml.safe_dump(int(meant) if meant.is_integer() and abs(meant) < 1e15 else meant).split()[0]
    return f"; YAML reads it as text, write {written}"


def near(word: str, words: tuple[str, ...]) -> str:
    """Suggest the nearest of *words*, if one is near."""
    matches = get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def shown(value: object) -> str:
    """Return a found value for a message: short, and in the words of YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a whole number of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(problems: list[str], label: str) -> str:
    """Return the first problem, and the others behind it without their file where it is *label*."""
    first, *others = problems
    if not others:
        return first
    rest = " | ".join(other.removeprefix(f"{label}: ") for other in others[:5])
    return f"{first} (and {len(others)} more: {rest}{' | ...' if len(others) > 5 else ''})"


UNITS = {
    "_pJ_per_bit": "pJ/bit",
    "bits_per_ns": "bits/ns",
    "_pJ_per_mac": "pJ/MAC",
    "_pJ_per_core_tick": "pJ",
    "per_s": "1/s",
    "_cycles": "cycles",
    "_per_cycle": "1/cycle",
    "macs_per_ns": "MACs/ns",
    "_GHz": "GHz",
    "_ns": "ns",
    "_pJ": "pJ",
    "_mW": "mW",
    "_um2": "um2",
    "_nm": "nm",
    "_V_per_K": "V/K",
    "_per_V": "1/V",
    "_mA": "mA",
    "_pF": "pF",
    "_K": "K",
    "_V": "V",
    "_bits": "bits",
    "_counts": "counts",
    "_s": "s",
}


def unit_of(name: str) -> str:
    """Return the unit that the end of a key says; nothing for a count or a ratio.

    >>> unit_of("energy_pJ_per_bit")
    'pJ/bit'
    """
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
