"""Post-training quantization: layer after layer, each fitted to what the layers before it really give.

Two networks run side by side on the calibration samples, the float one and the one that is quantized so far. A layer
gets the inputs of the second, on a grid whose range they tell, and is to give the outputs of the first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from imcsim.graph.assumption import parse_assumption
from imcsim.graph.qonnx.assume import with_assumed_bits
from imcsim.graph.qonnx.model import Model, Node
from imcsim.graph.qonnx.walk import as_stored
from imcsim.post_training.activations import scale_of
from imcsim.post_training.evaluate import forget, one_thread, product, readers, results
from imcsim.post_training.moments import Moments, moments
from imcsim.post_training.prepare import is_product, output_axis, prepare, require_float, without_unread
from imcsim.post_training.settings import Settings
from imcsim.post_training.weights import Levels, compensated, fitted_to, nearest

Array = np.ndarray
Progress = Callable[[str, int, int], None]

ANY_BITS = parse_assumption("W=ternary,A=2")

DOMAIN = "qonnx.custom_op.general"

PASSED = ("MaxPool", "GlobalMaxPool", "Flatten", "Reshape", "Identity", "Dropout", "Squeeze", "Unsqueeze", "Transpose")
"""Operators that give the same whether numbers are quantized before or behind them; before, codes move."""


@dataclass(frozen=True)
class Grid:
    """What the inputs of a layer may be: ``scale * code``."""

    bits: int
    is_signed: bool
    scale: float

    @property
    def top(self) -> int:
        """Greatest code; with a sign, it is the least one's size as well."""
        return (1 << (self.bits - 1)) - 1 if self.is_signed else (1 << self.bits) - 1

    def of(self, numbers: Array) -> Array:
        """Return *numbers* on the grid, float32."""
        scale = np.float32(self.scale)
        return np.round(np.clip(numbers / scale, -self.top if self.is_signed else 0, self.top)) * scale

    def __str__(self) -> str:
        return f"{'signed' if self.is_signed else 'unsigned'} {self.bits} bits"


@dataclass(frozen=True, eq=False)
class Coded:
    """A layer as it is quantized."""

    grid: Grid
    levels: Levels
    codes: Array
    """(c_out n), float64."""

    scales: Array
    """(c_out), float32."""

    bias: Array
    """(c_out), float32."""


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """What became of one layer, for a table."""

    layer: str
    operator: str
    weights: str
    inputs: str
    input_scale: float
    least_weight_scale: float
    greatest_weight_scale: float
    zeros: float
    """Share of the weights that are 0."""

    error: float
    """Of the outputs on the calibration samples: root of the mean square, as a share of that of the float outputs."""


def quantize(
    model: Model, x: Array, settings: Settings, *, progress: Progress | None = None
) -> tuple[Model, tuple[LayerRecord, ...]]:
    """Return *model* with quantizers on the weights and the inputs of its layers, and what became of each layer.

    *x* (n ...) are the calibration samples, all of which are used. Raises GraphError for a model that is quantized
    already, has no layer with weights, or has operators that a graph has not (all of them in one line).
    """
    require_float(model)
    as_stored(with_assumed_bits(model, ANY_BITS), "model")  # what else is wrong with it is said before it is run
    model = prepare(model)
    as_stored(with_quantizers(model, _anyhow(model)), "model")
    with one_thread():
        coded, records = calibrate(model, np.asarray(x, np.float32), settings, progress)
    return with_quantizers(model, coded), records


def _anyhow(model: Model) -> dict[str, Coded]:
    """Return codes for every layer, whatever they are, to see whether a graph takes the rest of the model."""
    found = {}
    for node in model.nodes:
        if is_product(model, node):
            rows = _rows(node, model.constants[node.inputs[1]])
            signs = np.where(rows < 0, -1.0, 1.0)
            ones = np.ones(len(rows), np.float32)
            found[node.outputs[0]] = Coded(Grid(8, False, 1.0), Levels(2), signs, ones, 0 * ones)
    return found


# --- calibration ----------------------------------------------------------------------------------------------------


def calibrate(
    model: Model, x: Array, settings: Settings, progress: Progress | None = None
) -> tuple[dict[str, Coded], tuple[LayerRecord, ...]]:
    """Return what each layer of a prepared *model* becomes, by the tensor that it makes, and the records of all."""
    rng = np.random.default_rng(settings.seed)
    edges, waiting = edge_layers(model), readers(model)
    source = model.inputs[0].name
    tensors = dict(model.constants) | {source: x}, dict(model.constants) | {source: x}  # float, quantized
    n_layers = sum(is_product(model, node) for node in model.nodes)
    grids: dict[tuple[str, int], Grid] = {}
    coded: dict[str, Coded] = {}
    records = []
    for node in model.nodes:
        plain, lossy = ([each[name] if name else None for name in node.inputs] for each in tensors)
        made = results(model, node, plain)
        tensors[0].update(made)
        if not is_product(model, node):
            is_same = all(a is b for a, b in zip(plain, lossy, strict=True))
            tensors[1].update(made if is_same else results(model, node, lossy))
        else:
            is_edge = node.outputs[0] in edges
            levels, bits = settings.levels(is_edge=is_edge), settings.input_bits(is_edge=is_edge)
            taken = lossy[0]
            assert taken is not None
            key = node.inputs[0], bits
            if key not in grids:
                grids[key] = _grid_for(taken, bits, settings, rng)
            on_grid = grids[key].of(taken)
            bias = model.constants[bias_of(model, node)]
            rows = _rows(node, model.constants[node.inputs[1]])
            shape = _shape_of_rows(node, model.constants[node.inputs[1]])
            output = made[node.outputs[0]] if node.kind != "MatMul" else made[node.outputs[0]] + bias
            known = moments(node, shape, on_grid, output, rng)
            coded[node.outputs[0]], error = fit(rows, bias, known, grids[key], levels, settings)
            numbers = numbers_of(node, coded[node.outputs[0]], model.constants[node.inputs[1]].shape)
            tensors[1][bias_of(model, node)] = coded[node.outputs[0]].bias
            given = [on_grid, numbers] + ([coded[node.outputs[0]].bias] if node.kind != "MatMul" else [])
            tensors[1].update(results(model, node, given))
            records.append(_record(node, coded[node.outputs[0]], error))
            if progress is not None:
                progress("quantize", len(records), n_layers)
        left = waiting.copy()
        forget(tensors[0], node, waiting)
        forget(tensors[1], node, left)
    return coded, tuple(records)


def _grid_for(numbers: Array, bits: int, settings: Settings, rng: np.random.Generator) -> Grid:
    is_signed = bool(numbers.min(initial=0.0) < 0)
    grid = Grid(bits, is_signed, 1.0)
    return replace(grid, scale=scale_of(numbers, grid.top, settings.calibration, rng))


def fit(
    rows: Array, bias: Array, known: list[Moments], grid: Grid, levels: Levels, settings: Settings
) -> tuple[Coded, float]:
    """Return codes, scales and biases of a layer of float weights *rows* (c n), and the error of its outputs."""
    n = len(rows) // len(known)
    codes, scales, biases = np.zeros(rows.shape), np.zeros(len(rows)), np.zeros(len(rows))
    error = power = 0.0
    for group, each in enumerate(known):
        part = slice(group * n, (group + 1) * n)
        wanted = rows[part].astype(np.float64)
        if settings.rounding == "compensated":
            wanted = fitted_to(wanted, each.inputs, each.both, each.n)
        codes[part], scale = nearest(wanted, levels)
        if settings.rounding == "compensated":
            codes[part] = compensated(wanted, scale, levels, each.inputs)
        shared, spread = _products(codes[part], scale, each)
        factor = _factor(shared, spread, each.spread, settings.correction)
        scales[part] = np.float32(scale * factor)  # as it is stored
        shared, spread = _products(codes[part], scales[part], each)
        sums = scales[part] * product(codes[part], each.input)
        biases[part] = bias[part] if settings.correction == "none" else each.output - sums
        off = np.maximum(spread - 2 * shared + each.spread, 0) + np.square(sums + biases[part] - each.output)
        error, power = error + off.sum(), power + (each.spread + np.square(each.output)).sum()
    coded = Coded(grid, levels, codes, scales.astype(np.float32), biases.astype(np.float32))
    return coded, float(np.sqrt(error / power)) if power > 0 else 0.0


def _products(codes: Array, scales: Array, known: Moments) -> tuple[Array, Array]:
    """Return the mean products (c) of what the codes give with what is wanted, and with themselves."""
    weights = scales[:, np.newaxis] * codes
    return (weights * known.both.T).sum(axis=1), (product(weights, known.inputs) * weights).sum(axis=1)


def _factor(shared: Array, spread: Array, wanted: Array, correction: str) -> Array:
    """Return by what to scale outputs, from their mean products with the wanted ones, their spread and the wanted one.

    1 where outputs do not vary, or fall as the wanted ones rise.
    """
    with np.errstate(all="ignore"):
        factor = {"scale": shared / spread, "statistics": np.sqrt(wanted / spread)}.get(
            correction, np.ones_like(spread)
        )
    return np.where((shared > 0) & (spread > 0) & np.isfinite(factor) & (factor > 0), factor, 1.0)


def edge_layers(model: Model) -> set[str]:
    """Return what the layers make that no other layer is before, or behind: names of tensors."""
    behind: set[str] = set()
    edges = set()
    for node in model.nodes:
        follows = bool(behind & set(node.inputs))
        if is_product(model, node) and not follows:
            edges.add(node.outputs[0])
        if follows or is_product(model, node):
            behind |= set(node.outputs)
    before: set[str] = set()
    for node in reversed(model.nodes):
        leads = bool(before & set(node.outputs))
        if is_product(model, node) and not leads:
            edges.add(node.outputs[0])
        if leads or is_product(model, node):
            before |= {name for name in node.inputs if name not in model.constants}
    return edges


def bias_of(model: Model, node: Node) -> str:
    """Return the name of the bias of a layer: an input, or that of the Add behind it."""
    if node.kind != "MatMul":
        return node.inputs[2]
    return next(other.inputs[1] for other in model.nodes if other.inputs[:1] == node.outputs)


def _rows(node: Node, weights: Array) -> Array:
    return weights.T if output_axis(node) else weights.reshape(len(weights), -1)


def _shape_of_rows(node: Node, weights: Array) -> tuple[int, ...]:
    return weights.T.shape if output_axis(node) else weights.shape


def numbers_of(node: Node, coded: Coded, shape: tuple[int, ...]) -> Array:
    """Return the weights of *shape* that the codes stand for, float32: what a Quant makes of them is the same."""
    numbers = coded.codes.astype(np.float32) * coded.scales[:, np.newaxis]
    return np.ascontiguousarray((numbers.T if output_axis(node) else numbers).reshape(shape))


def _record(node: Node, coded: Coded, error: float) -> LayerRecord:
    return LayerRecord(
        layer=node.name,
        operator=node.kind,
        weights=str(coded.levels),
        inputs=str(coded.grid),
        input_scale=coded.grid.scale,
        least_weight_scale=float(coded.scales.min()),
        greatest_weight_scale=float(coded.scales.max()),
        zeros=float(np.mean(coded.codes == 0)),
        error=error,
    )


# --- the model with its quantizers ----------------------------------------------------------------------------------


def with_quantizers(model: Model, coded: Mapping[str, Coded]) -> Model:
    """Return a prepared *model* with a Quant on inputs and weights of each layer; *coded*: by the tensor it makes."""
    constants = dict(model.constants)
    taken = {*constants, *(name for node in model.nodes for name in node.outputs), model.inputs[0].name}
    nodes: list[Node] = []
    made: dict[tuple[str, Grid], str] = {}

    def fresh(name: str) -> str:
        while name in taken:
            name += "'"
        taken.add(name)
        return name

    def constant(name: str, values: Array | float) -> str:
        name = fresh(name)
        constants[name] = np.asarray(values, np.float32)
        return name

    def quant(source: str, scale: Array | float, bits: int, *, is_signed: bool) -> str:
        parameters = constant(f"{source}.scale", scale), constant(f"{source}.zero", 0), constant(f"{source}.bits", bits)
        output = fresh(f"{source}.codes")
        attributes = {"signed": int(is_signed), "narrow": int(is_signed), "rounding_mode": "ROUND"}
        nodes.append(Node("Quant", DOMAIN, output, (source, *parameters), (output,), attributes))
        return output

    for node in model.nodes:
        if not is_product(model, node) or node.outputs[0] not in coded:
            nodes.append(node)
            continue
        each = coded[node.outputs[0]]
        key = node.inputs[0], each.grid
        if key not in made:
            made[key] = quant(node.inputs[0], each.grid.scale, each.grid.bits, is_signed=each.grid.is_signed)
        shape = constants[node.inputs[1]].shape
        weights = constant(node.inputs[1], numbers_of(node, each, shape))
        wide = [1] * len(shape)
        wide[output_axis(node)] = -1
        scales = each.scales.reshape(wide)
        if each.levels.is_binary:
            output = fresh(f"{weights}.codes")
            scale = constant(f"{weights}.scale", scales)
            nodes.append(Node("BipolarQuant", DOMAIN, output, (weights, scale), (output,), {}))
        else:
            output = quant(weights, scales, each.levels.bits, is_signed=True)
        bias = constant(bias_of(model, node), each.bias)
        rest = (bias,) if node.kind != "MatMul" else ()
        nodes.append(replace(node, inputs=(made[key], output, *rest)))
        if node.kind == "MatMul":
            constants[bias_of(model, node)] = each.bias
    return without_unread(_moved_up(replace(model, constants=constants, nodes=tuple(nodes))))


def _moved_up(model: Model) -> Model:
    """Move quantizers before the pools and the changes of shape that give the same behind them."""
    nodes = list(model.nodes)
    at = 0
    while at < len(nodes):
        node, read = nodes[at], readers(replace(model, nodes=tuple(nodes)))
        maker = next((i for i, other in enumerate(nodes) if node.inputs[:1] == other.outputs[:1]), None)
        is_movable = (
            node.kind == "Quant"
            and maker is not None
            and nodes[maker].kind in PASSED
            and len(nodes[maker].outputs) == 1
            and read[node.inputs[0]] == 1
            and nodes[maker].inputs[0] not in model.constants
        )
        if not is_movable or maker is None:
            at += 1
            continue
        passed = nodes[maker]
        between = f"{node.outputs[0]}.before"
        quantizer = replace(node, inputs=(passed.inputs[0], *node.inputs[1:]), outputs=(between,))
        moved = replace(passed, inputs=(between, *passed.inputs[1:]), outputs=node.outputs)
        nodes[at] = moved
        nodes[maker] = quantizer
        at = maker
    return replace(model, nodes=tuple(nodes))
