"""Conditions and constraints of a sweep: texts, read into trees that are judged for all points at once.

The language is a small part of Python's: comparisons, arithmetic, ``and``, ``or``, ``not``, ``in [..]``, min, max, abs,
log2, texts in quotes, and names with dots. A number may bear a unit (``2 mm2``). Nothing is ever handed to `eval`.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from imcsim.arch.load import near, shown, unit_of
from imcsim.errors import ConfigError

Kind = Literal["number", "text", "truth"]
Columns = Mapping[str, Any]
Bools = NDArray[np.bool_]

GREATEST_LENGTH = 2000

UNITS: dict[str, tuple[str, float]] = {
    "ps": ("time", 1e-3),
    "ns": ("time", 1.0),
    "us": ("time", 1e3),
    "ms": ("time", 1e6),
    "s": ("time", 1e9),
    "fJ": ("energy", 1e-3),
    "pJ": ("energy", 1.0),
    "nJ": ("energy", 1e3),
    "uJ": ("energy", 1e6),
    "mJ": ("energy", 1e9),
    "J": ("energy", 1e12),
    "um2": ("area", 1.0),
    "mm2": ("area", 1e6),
    "mW": ("power", 1.0),
    "W": ("power", 1e3),
    "MHz": ("frequency", 1e-3),
    "GHz": ("frequency", 1.0),
    "mV": ("voltage", 1e-3),
    "V": ("voltage", 1.0),
    "bits": ("data", 1.0),
    "KiB": ("data", 8.0 * 1024),
    "MiB": ("data", 8.0 * 1024**2),
}
"""What a number may bear: what it measures, and how large it is in imcsim's own unit of that."""

_NUMBER_AND_WORD = re.compile(
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?<![\w.])((?>(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))\s*([A-Za-zµμ_]\w*)"""
)
_NUMBERED_STEP = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?<=[A-Za-z_])\.(\d+)(?=\.[A-Za-z_])""")
"""A step of a name that is a number, ``quantizer.3.bits_a``, which Python's names have not: ``_3`` stands for it."""

_WORDS_OF_PYTHON = {"and", "or", "not", "in", "if", "else", "is", "for"}
_FUNCTIONS: dict[str, tuple[int, int]] = {"min": (2, 100), "max": (2, 100), "abs": (1, 1), "log2": (1, 1)}
"""Least and greatest number of arguments."""

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


@dataclass(frozen=True)
class Known:
    """What a name in an expression stands for."""

    name: str
    """In full: a parameter, a dotted key of the chip or a figure."""

    kind: Kind = "number"


@dataclass(frozen=True)
class Expression:
    """Something that holds for a point or does not; two are equal where their texts are."""

    text: str
    names: tuple[str, ...] = field(compare=False)
    """What it asks for, each once, in full."""

    tree: ast.expr = field(compare=False, repr=False)

    def values(self, columns: Columns) -> Bools:
        """Return where it holds, from a column (n) or one value for each of `names`.

        A number that is not defined (a division by zero, NaN) compares as false with everything.
        """
        with np.errstate(all="ignore"):
            return np.asarray(_value(self.tree, columns), dtype=np.bool_)


def parse(text: str, where: str, find: Callable[[str], Known] = Known) -> Expression:
    """Return the expression that *text* says; *where* begins the message of the ConfigError that it may raise.

    *find* returns what a name stands for, or raises ConfigError.

    >>> parse("rows % 16 == 0 and 2 <= area_um2 <= 3 mm2", "here").values({"rows": 32, "area_um2": np.array([1, 9])})
    array([False,  True])
    """
    if len(text) > GREATEST_LENGTH:
        raise ConfigError(f"{where}: must be at most {GREATEST_LENGTH} characters, got {len(text)}")
    reader = _Reader(text, where, find)
    tree, kind = reader.read(reader.parsed())
    if kind != "truth":
        raise reader.refused("must be a comparison, something that holds or does not")
    return Expression(text, tuple(reader.names), tree)


class _Reader:
    """Reads one text; its names in full and its numbers without units come out."""

    def __init__(self, text: str, where: str, find: Callable[[str], Known]) -> None:
        self.text, self.where, self.find = text, where, find
        self.names: dict[str, None] = {}
        self.compared: list[ast.Compare] = []

    def refused(self, what: str, hint: str = "") -> ConfigError:
        """Return what to raise."""
        return ConfigError(f"{self.where}: {what}, got {shown(self.text)}{f'; {hint}' if hint else ''}")

    def parsed(self) -> ast.expr:
        """Return Python's tree of the text, in which ``2 mm2`` is the product ``(2 @ mm2)``."""
        if "@" in re.sub(_NUMBER_AND_WORD, "", self.text):
            raise self.refused("must be made of comparisons and arithmetic")
        plain = _NUMBER_AND_WORD.sub(self._with_unit, self.text).strip()
        plain = _NUMBERED_STEP.sub(lambda found: found.group(1) or f"._{found.group(2)}", plain)
        try:
            return ast.parse(plain, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            alone = re.search(r"(?<![<>=!])=(?!=)", self.text)
            hint = "write == for equal" if alone else "write and, or" if re.search("&&|\\|\\|", self.text) else ""
            raise self.refused("must be an expression", hint) from None

    def _with_unit(self, found: re.Match[str]) -> str:
        quoted, number, word = found.groups()
        if quoted is not None or word in _WORDS_OF_PYTHON:
            return found.group()
        unit = word.replace("µ", "u").replace("μ", "u")
        if unit not in UNITS:
            hint = near(unit, tuple(UNITS)).removeprefix("; ")
            raise self.refused(f"{number} {word}: the unit must be one of {', '.join(UNITS)}", hint)
        return f"({number}@{unit})"

    def read(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        """Return *node* with names in full, and what it gives."""
        match node:
            case ast.Constant(value=bool()):
                return node, "truth"
            case ast.Constant(value=int() | float() as value):
                if isinstance(value, float) and not math.isfinite(value):
                    raise self.refused("numbers must be finite")
                return node, "number"
            case ast.Constant(value=str()):
                return node, "text"
            case ast.Name(id="true" | "false" as word):
                return ast.Constant(word == "true"), "truth"
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case ast.BinOp(left=ast.Constant(value=value), op=ast.MatMult(), right=ast.Name(id=unit)):
                return ast.Constant(self._brought(value, unit)), "number"
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
                return ast.BinOp(self._of("number", left), op, self._of("number", right)), "number"
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                return ast.UnaryOp(sign, self._of("number", operand)), "number"
            case ast.UnaryOp(op=ast.Not() as negation, operand=operand):
                return ast.UnaryOp(negation, self._of("truth", operand)), "truth"
            case ast.BoolOp(op=op, values=values):
                return ast.BoolOp(op, [self._of("truth", value) for value in values]), "truth"
            case ast.Compare():
                return self._comparison(node), "truth"
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                least, most = _FUNCTIONS[name]
                if not least <= len(args) <= most:
                    raise self.refused(
                        f"{name}(): must have {least if least == most else f'{least} or more'} arguments"
                    )
                return ast.Call(ast.Name(name), [self._of("number", arg) for arg in args], []), "number"
            case _:
                raise self.refused(
                    "must be made of comparisons, arithmetic, and, or, not, in [..], min, max, abs, log2 and names"
                )

    def _of(self, kind: Kind, node: ast.expr) -> ast.expr:
        read, found = self.read(node)
        if found != kind:
            wanted = {"number": "a number", "text": "a text", "truth": "a comparison"}[kind]
            raise self.refused(f"{self._said(node)}: must be {wanted} here")
        return read

    def _said(self, node: ast.expr) -> str:
        return re.sub(r"\._(\d+)(?=\.)", r".\1", ast.unparse(node).replace(" @ ", " "))

    def _name(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        name = _dotted(node)
        if name is None:
            raise self.refused(f"{self._said(node)}: must be a name")
        try:
            known = self.find(name)
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}; in {shown(self.text)}") from None
        self.names[known.name] = None
        return ast.Name(known.name), known.kind

    def _comparison(self, node: ast.Compare) -> ast.expr:
        self.compared.append(node)
        first, kind = self.read(node.left)
        others: list[ast.expr] = []
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
                    raise self.refused(f"{self._said(right)}: must be a list in brackets after in")
                others.append(ast.List([self._of(kind, element) for element in right.elts]))
                continue
            if not isinstance(op, _COMPARISONS):
                raise self.refused("must compare with ==, !=, <, <=, >, >= or in")
            others.append(self._of(kind, right))
            if kind != "number" and not isinstance(op, ast.Eq | ast.NotEq):
                raise self.refused(f"{self._said(node.left)}: must be a number to be greater or less")
        self.compared.pop()
        return ast.Compare(first, node.ops, others)

    def _brought(self, value: Any, unit: str) -> float | int:
        """Return *value* in the unit of what it is compared with."""
        what, size = UNITS[unit]
        found: set[str] = set()
        for part in ast.walk(self.compared[-1]) if self.compared else ():
            name = _dotted(part)
            if name is not None and not _is_unit_of(part, self.compared[-1]) and name not in _FUNCTIONS:
                found |= _units_of(self.find(name).name)
        suiting = sorted(word for word in found if UNITS[word][0] == what)
        if len(suiting) != 1:
            wanted = f"one unit of {what}" if suiting else f"{'an' if what[0] in 'ae' else 'a'} {what}"
            has = f"with {' and '.join(suiting)}" if suiting else f"with what is in {' and '.join(sorted(found))}"
            has = has if found else "with what has no unit"
            raise self.refused(f"{value} {unit}: must be compared with {wanted}, not {has}")
        factor = size / UNITS[suiting[0]][1]
        brought = value * factor
        return int(brought) if isinstance(value, int) and factor >= 1 and brought < 2**53 else brought


def _units_of(name: str) -> set[str]:
    """Return the unit of a name as a word of `UNITS`, if it is one; that of a product, such as pJ ns, is none."""
    unit = unit_of(name.rpartition(".")[2])
    return {unit} if unit in UNITS and not name.endswith("_pJ_ns") else set()


def _is_unit_of(part: ast.AST, inside: ast.AST) -> bool:
    """Whether the name *part* is the unit of a number in *inside*."""
    return any(
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and node.right is part
        for node in ast.walk(inside)
    )


def _dotted(node: ast.AST) -> str | None:
    """Return the name with dots that *node* is, or None."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=last):
            first = _dotted(value)
            return None if first is None else f"{first}.{re.sub(r'^_(?=[0-9]+$)', '', last)}"
        case _:
            return None


# --- values -----------------------------------------------------------------------------------------------------


def _value(node: ast.expr, columns: Columns) -> Any:
    """Return the value of a tree that was read: an array (n), or one value."""
    match node:
        case ast.Constant(value=value):
            return _constant(value)
        case ast.Name(id=name):
            column = columns[name]
            return column if isinstance(column, str) else np.asarray(column)
        case ast.UnaryOp(op=op, operand=operand):
            inner = _value(operand, columns)
            if isinstance(op, ast.Not):
                return ~np.asarray(inner, np.bool_)
            return -inner if isinstance(op, ast.USub) else inner
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _value(left, columns), _value(right, columns))
        case ast.BoolOp(op=op, values=parts):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return join.reduce(np.broadcast_arrays(*(_value(part, columns) for part in parts)))
        case ast.Compare():
            return _comparison(node, columns)
        case ast.Call(func=ast.Name(id=name), args=args):
            found = [_value(arg, columns) for arg in args]
            if name == "abs":
                return np.abs(found[0])
            if name == "log2":
                return np.log2(np.asarray(found[0], np.float64))
            return (np.minimum if name == "min" else np.maximum).reduce(np.broadcast_arrays(*found))
    raise AssertionError(node)


def _constant(value: Any) -> Any:
    """Return a number of the text as numpy takes it; a text stays one."""
    return value if isinstance(value, str) else np.asarray(float(value) if _is_large(value) else value)


def _comparison(node: ast.Compare, columns: Columns) -> Any:
    result: Any = np.asarray(True)
    left = _value(node.left, columns)
    for op, other in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(other, ast.List)
            held: Any = np.asarray(False)
            for element in other.elts:
                held = held | _compared(ast.Eq(), left, _value(element, columns))
            if isinstance(op, ast.NotIn):
                held = ~held & _is_defined(left)
        else:
            right = _value(other, columns)
            held, left = _compared(op, left, right), right
        result = result & held
    return result


def _is_large(value: object) -> bool:
    return isinstance(value, int) and not -(2**63) < value < 2**63


def _is_defined(value: Any) -> Any:
    return ~np.isnan(value) if getattr(value, "dtype", None) == np.float64 else np.asarray(True)


def _compared(op: ast.cmpop, left: Any, right: Any) -> Any:
    match op:
        case ast.Eq():
            return np.asarray(left == right)
        case ast.NotEq():
            return np.asarray(left != right) & _is_defined(left) & _is_defined(right)
        case ast.Lt():
            return left < right
        case ast.LtE():
            return left <= right
        case ast.Gt():
            return left > right
        case _:
            return left >= right


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    """Return *left* op *right*: in whole numbers where both are and none overflows, else in floats."""
    if not (_is_whole(left) and _is_whole(right)) or _leaves_int64(op, left, right):
        left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Pow():
            return left**right
    right = np.where(right == 0, np.nan, right) if np.any(right == 0) else right
    match op:
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return left // right
        case _:
            return left % right


def _is_whole(value: Any) -> bool:
    return bool(np.asarray(value).dtype.kind == "i")


def _leaves_int64(op: ast.operator, left: Any, right: Any) -> bool:
    """Whether a result may be too large for int64, or is no whole number."""
    if not np.size(left) or not np.size(right):
        return False
    low, most, by = int(np.min(right)), _greatest(left), _greatest(right)
    match op:
        case ast.Add() | ast.Sub():
            return most + by >= 2**63
        case ast.Mult():
            return most * by >= 2**63
        case ast.Pow():
            return low < 0 or by * math.log2(max(most, 2)) >= 62.9
    return False


def _greatest(value: Any) -> int:
    return max(abs(int(np.min(value))), abs(int(np.max(value))))
