"""One home for Hypothesis strategies: ternary arrays, formats, chips, graphs and programs; and a workload at hand.

Shapes and options are drawn one by one, so that they shrink; the numbers in arrays come from a drawn seed.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from imcsim.arch.load import load_chip
from imcsim.arch.spec import Chip
from imcsim.errors import DataError
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Abs,
    Add,
    AddChannels,
    Affine,
    AvgPool,
    ChannelMix,
    Clip,
    Concat,
    Erf,
    ExtremePool,
    Flatten,
    Gelu,
    Graph,
    GruCell,
    HardSwish,
    LayerAttrs,
    LayerNorm,
    LogSoftmax,
    LstmCell,
    MatMul,
    MaxPool,
    Mean,
    Mul,
    Op,
    Permute,
    PRelu,
    Product,
    Quantize,
    RealProduct,
    Relu,
    Reshape,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    SpatialAffine,
    Tanh,
    Tensor,
    Threshold,
    signed,
    unsigned,
)
from imcsim.graph.offsets import take_apart
from imcsim.mapping.program import Program, Task
from imcsim.metrics import METRICS
from imcsim.ternary import PlaneSum, sign_magnitude, ternary
from imcsim.workloads import Workload

TIM_DNN = load_chip("tim-dnn")
STYLES = ("spatial", "temporal")


def seeds():
    """Seeds of numpy's generators."""
    return st.integers(0, 2**32 - 1)


@st.composite
def ternary_arrays(draw, shape):
    """Arrays of -1, 0, +1 with any share of zeros."""
    rng = np.random.default_rng(draw(seeds()))
    zeros = draw(st.sampled_from([0.0, 0.3, 0.6, 0.9]))
    return (rng.choice([-1, 1], size=shape) * (rng.random(shape) >= zeros)).astype(np.int8)


def code_formats(scales=(1.0, 0.5, 0.37)):
    """Formats that a tile can take."""
    scale = st.sampled_from(scales)
    return st.one_of(
        st.sampled_from([BINARY, TERNARY]),
        st.builds(unsigned, st.integers(1, 4), scale),
        st.builds(signed, st.integers(2, 4), scale),
    )


# --- chips ----------------------------------------------------------------------------------------------------------


def variant(chip: Chip, changes: dict) -> Chip:
    """Return *chip* with *changes* (dotted key to value), checked; quicker than reading its file again."""
    tree = chip.model_dump()
    for key, value in changes.items():
        *path, last = key.split(".")
        record = tree
        for step in path:
            record = record[step]
        record[last] = value
    return Chip.model_validate(tree)


def many_banks(chip: Chip, *, n_banks=1, n_chips=1, topology="chain", latency_ns=20.0, bits_per_ns=200.0) -> Chip:
    """Return *n_chips* such chips of *n_banks* banks each, with links alike between banks and between chips."""
    said = {"basis": "assumed", "source": "a test"}
    link = {
        "topology": topology,
        "latency_ns": latency_ns,
        "bits_per_ns": bits_per_ns,
        "energy_pJ_per_bit": 1.0,
        **said,
    }
    link["silicon"] = {"area_um2": 1000.0, "leakage_mW": 0.5, **said}
    return variant(chip, {"n_banks": n_banks, "n_chips": n_chips, "bank_link": link, "chip_link": link})


KINDS = ("ternary-in-memory", "near-memory")


def chips(*, ideal=False, kinds=KINDS, instructions=False):
    """Variants of tim-dnn with small tiles, some of them near-memory; *ideal*: no count is ever clipped.

    *instructions*: some have few entries for instructions, so that they are loaded; these may be too few for pipelines.
    """
    changes = changes_of_tim_dnn(ideal, kinds, instructions)
    return changes.map(tim_dnn_with)  # so that a failing test shows the changes alone


def tim_dnn_with(changes: dict) -> Chip:
    """Return tim-dnn with *changes*."""
    return variant(TIM_DNN, changes)


@st.composite
def changes_of_tim_dnn(draw, ideal, kinds, instructions):
    """Legal changes, dotted key to value."""
    is_near_memory = draw(st.sampled_from([kinds[0]] * 3 + [kinds[-1]])) == "near-memory"
    rows_per_access = 1 if is_near_memory else draw(st.sampled_from([16, 4, 8, 5, 1, 2, 3, 32]))
    n_pcus = draw(st.sampled_from([4, 1, 2, 8]))
    least_columns = -(-4 // n_pcus)  # a tile holds all planes of an output
    latency = st.sampled_from([1.0, 0.0, 0.3, 4.7])
    interval = st.sampled_from([1.0, 0.25, 3.1])
    bandwidth = st.sampled_from([512.0, 1.0, 7.3, 64.0])
    changes = {
        "n_tiles": draw(st.integers(1, 8)),
        "double_buffered": draw(st.booleans()),
        "tile.rows_per_access": rows_per_access,
        "tile.n_rows": rows_per_access * draw(st.integers(1, 6)),
        "tile.n_pcus": n_pcus,
        "tile.n_columns": n_pcus * draw(st.sampled_from([least_columns, least_columns + 1, 2 * least_columns, 8])),
        "tile.count_max": rows_per_access + draw(st.integers(0, 3)) if ideal else draw(st.sampled_from([1, 2, 3, 8])),
        "tile.access.latency_ns": draw(st.sampled_from([2.3, 5.0, 0.4])),
        "tile.conversion.latency_ns": draw(st.sampled_from([0.575, 3.0, 0.1])),
        "tile.conversion.interval_ns": draw(st.sampled_from([0.2875, 1.0, 0.01])),
        "tile.write_row.latency_ns": draw(st.sampled_from([2.3, 11.0, 0.2])),
        "activation_buffer.capacity_bits": draw(st.sampled_from([131072, 1, 300, 2000])),
        "psum_buffer.capacity_bits": draw(st.sampled_from([65536, 120])),
        "reduce_unit.n_adders": draw(st.sampled_from([256, 1, 5])),
        "reduce_unit.adder_bits": draw(st.sampled_from([12, 3])),
        "reduce_unit.add.latency_ns": draw(latency),
        "scheduler.issue.latency_ns": draw(latency),
        "scheduler.n_entries": draw(st.sampled_from([1 << 20, 128, 128, 5] if instructions else [1 << 20])),
        "network.latency_ns": draw(latency),
        "network.bits_per_ns": draw(bandwidth),
        "network.carries": ["weights", *(t for t in ("inputs", "psums", "outputs") if draw(st.integers(0, 3)) == 0)],
        "tile.block_select.latency_ns": draw(st.sampled_from([0.0, 0.0, 0.3, 4.0])),
        "main_memory.latency_ns": draw(st.sampled_from([100.0, 0.0, 3.3])),
        "main_memory.bits_per_ns": draw(bandwidth),
        "main_memory.n_channels": draw(st.sampled_from([8, 1, 3])),
        "main_memory.interleave.piece_bits": draw(st.sampled_from([256, 8])),
    }
    for buffer in ("activation_buffer", "psum_buffer"):
        for port in ("read", "write"):
            changes[f"{buffer}.{port}.latency_ns"] = draw(latency)
            changes[f"{buffer}.{port}.bits_per_ns"] = draw(bandwidth)
            changes[f"{buffer}.{port}.n_ports"] = draw(st.sampled_from([1, 1, 2]))
    for lane in ("relu", "vpe", "spe", "qu"):
        changes[f"sfu.{lane}.n_lanes"] = draw(st.sampled_from([32, 1, 3]))
        changes[f"sfu.{lane}.operation.latency_ns"] = draw(latency)
        changes[f"sfu.{lane}.operation.interval_ns"] = draw(interval)
    return changes | (NEAR_MEMORY if is_near_memory else {})


NEAR_MEMORY = {
    "kind": "near-memory",
    "tile.rows_per_access": 1,
    "tile.count_max": 1,
    "tile.conversion.adc_fraction": 0.0,
    "tile.access.characterized_at.rows_per_access": 1,
    "tile.access.characterized_at.count_max": 1,
    "tile.access.activity": None,
    "circuit": None,
}
"""What a chip of that kind has and has not."""


# --- graphs ---------------------------------------------------------------------------------------------------------


@dataclass
class _Network:
    """A graph that grows by one product or one step an op, as `capture` writes it before any pass."""

    draw: st.DrawFn
    rng: np.random.Generator
    dyadic: bool
    """All constants are whole multiples of small powers of two, so that float64 never rounds."""

    grouped: bool = True
    """Whether products may have scales for groups of inputs, and so sums that are not whole."""

    ops: list = field(default_factory=list)
    inputs: list = field(default_factory=list)
    at: Tensor = None
    n_names: int = 0

    def flip(self):
        return self.draw(st.booleans())

    def op(self, kind, shape, form, *, product=None, steps=()):
        self.n_names += 1
        name = f"{kind}{self.n_names}"
        made = Tensor(f"t{self.n_names}", shape, form)
        self.ops.append(Op(name=name, input=self.at.name, output=made, product=product, steps=steps))
        self.at = made

    def step(self, kind, step, form=None):
        steps, now = (step,), self.at.format
        if not step.keeps_codes and (now.scale != 1 or now.zero):
            steps = (Affine(now.scale, now.offset), step)
        form = form or (now if step.keeps_codes else REAL)
        self.op(kind, step.shape(self.at.shape), form, steps=steps)

    def numbers(self, n, spread):
        """*n* constants of about the size *spread*."""
        values = self.rng.normal(size=n) * spread
        return np.round(values * 8) / 8 if self.dyadic else values

    def factors(self, n):
        """*n* factors of either sign, now and then 0."""
        if self.dyadic:
            return self.rng.choice([-2.0, -1.0, -0.5, 0.25, 0.5, 1.0, 2.0, 0.0], size=n)
        return self.rng.normal(size=n) * (self.rng.random(n) > 0.1)

    def quantizer(self, form):
        """A step to codes of *form*."""
        if form.bits >= 3 and self.flip() and form.kind in ("unsigned", "signed"):
            return Quantize(form)
        codes = np.arange(form.low, form.high + 1)
        codes = codes[codes != 0] if form.kind == "binary" else codes
        n_channels = self.at.shape[0] if self.flip() else 1
        thresholds = (codes[1:] - 0.5) * form.scale + self.numbers((n_channels, 1), 1.0)
        direction = self.rng.choice([-1, 1], size=n_channels) if self.flip() else 1
        return Threshold(thresholds, codes, form, direction)

    def codes(self, form):
        self.step("quantize", self.quantizer(form), form)

    def product(self):
        source = self.at
        bits = self.draw(st.integers(1, 4))
        kind = "linear" if len(source.shape) == 1 else "conv2d"
        geometry = {}
        if kind == "linear":
            shape = (self.draw(st.integers(1, 9)), source.shape[0])
        else:
            c, h, w = source.shape
            groups = self.draw(st.sampled_from([g for g in (1, 2, 3, 4) if c % g == 0]))
            kernel = self.draw(st.integers(1, min(3, h))), self.draw(st.integers(1, min(3, w)))
            padding = self.draw(st.integers(0, 1)), self.draw(st.integers(0, 1))
            can_spread = [size + 2 * p > 2 * (k - 1) for size, p, k in zip((h, w), padding, kernel, strict=True)]
            dilation = tuple(self.draw(st.integers(1, 1 + can)) for can in can_spread)
            stride = self.draw(st.integers(1, 2)), self.draw(st.integers(1, 2))
            low, high = max(-1, source.format.low), min(1, source.format.high)
            pads = [0, *range(low, high + 1)]
            attrs = LayerAttrs(pad_value=self.draw(st.sampled_from(pads)))
            geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "attrs": attrs}
            shape = (groups * self.draw(st.integers(1, 4)), c // groups, *kernel)
        codec = ternary() if bits == 1 else sign_magnitude(bits)
        codes = self.rng.integers(codec.low, codec.high + 1, size=shape)
        per_channel = (shape[0], *(1,) * (len(shape) - 1))
        scale = np.abs(self.factors(per_channel if self.flip() else ())) + 0.25
        weights = codec.plane_sum(codes, scale=scale)
        if self.draw(st.integers(0, 3)) == 0:
            weights = replace(weights, offset=self.numbers(per_channel if self.flip() else (), 1.0))
        if self.grouped and self.draw(st.integers(0, 3)) == 0:
            size = self.draw(st.integers(1, shape[1]))
            window = shape[2:] if self.flip() else ()
            group_scale = self.factors((shape[0], -(-shape[1] // size), *window))
            weights = replace(weights, group_size=size, group_scale=group_scale)
        product = Product(kind=kind, weights=weights, **geometry)
        bias = 0.0 if self.flip() else self.numbers(shape[0], 1.0)
        product, steps = take_apart(product, source, bias)
        self.op(kind, product.shape(source.shape), REAL, product=product)
        for step in steps:
            self.step("scale", step)

    def join_input(self, formats):
        """Add a further input to what is there: as it is, as codes, or behind weights of its own."""
        at = self.at
        kind = self.draw(st.sampled_from(["raw", "codes", "product"]))
        n = self.draw(st.integers(1, 6)) if kind == "product" else at.shape[0]
        self.at = Tensor(f"x{len(self.inputs)}", (n, *at.shape[1:]), REAL)
        self.inputs.append(self.at)
        if kind != "raw":
            self.codes(self.draw(formats))
        if kind == "product":
            shape = (at.shape[0], n, *(1,) * (len(at.shape) - 1))
            product = Product(kind="linear" if len(at.shape) == 1 else "conv2d",
                              weights=ternary().plane_sum(self.rng.integers(-1, 2, size=shape)))  # fmt: skip
            self.op("branch", at.shape, REAL, product=product)
        other, self.at = self.at, at
        self.step("join", Add(other.name, other.format.scale))

    def recurrence(self):
        """An LSTM or a GRU whose hidden codes have the format of what goes in."""
        form, n_inputs, n = self.at.format, self.at.shape[0], self.draw(st.integers(1, 4))
        bits = self.draw(st.integers(1, 2))
        codec = ternary() if bits == 1 else sign_magnitude(bits)
        codes = self.rng.integers(codec.low, codec.high + 1, size=(4 * n, n_inputs + n))
        cell = self.draw(st.sampled_from([LstmCell, GruCell]))
        if cell is GruCell:
            codes[2 * n : 3 * n, n_inputs:] = codes[3 * n :, :n_inputs] = 0
        product = Product(kind="lstm" if cell is LstmCell else "gru", weights=codec.plane_sum(codes))
        scale = np.abs(self.factors(4 * n)) * form.scale if self.flip() else np.array(0.5 * form.scale)
        if form.bits >= 3 and form.kind in ("unsigned", "signed") and self.flip():
            quantizer = Quantize(form)
        else:
            levels = np.arange(form.low, form.high + 1)
            levels = levels[levels != 0] if form.kind == "binary" else levels
            limits = np.sort(self.rng.uniform(-0.6, 0.6, size=(n if self.flip() else 1, len(levels) - 1)), axis=1)
            quantizer = Threshold(limits, levels, form)
        steps = (cell(scale, self.numbers(4 * n, 1.0), quantizer),)
        self.op("recurrence", (n, *self.at.shape[1:]), form, product=product, steps=steps)

    def digital(self, earlier):
        """Some steps between a product and what follows."""
        if self.flip():
            c = self.at.shape[0]
            self.step("norm", Affine(self.factors(c), self.numbers(c, 1.0)))
        same = [t for t in earlier if t.shape == self.at.shape]
        if same and self.flip():
            other = self.draw(st.sampled_from(same))
            self.step("add", Add(other.name, other.format.scale))
        for _ in range(self.draw(st.sampled_from([0, 0, 1, 2]))):
            self.epilogue(earlier)
        if self.flip():
            self.step("relu", Relu())
        if not self.dyadic and self.draw(st.integers(0, 3)) == 0:
            self.step("tanh", Tanh())
        if self.draw(st.integers(0, 3)) == 0:
            self.real_product()
        if self.flip():
            self.pool()

    def epilogue(self, earlier):
        """One of the steps that published quantizers need."""
        c, *image = self.at.shape
        n = self.draw(st.integers(1, c))
        steps = {
            "prelu": lambda: PRelu(self.factors(c) if self.flip() else 0.25),
            "clip": lambda: Clip(-1.5, self.draw(st.sampled_from([-1.5, 0.0, 2.0]))),
            "abs": Abs,
            "slice": lambda: Slice(c - n, c),
            "mix": lambda: ChannelMix(self.rng.integers(-2, 3, (n, c)) * (self.rng.random((n, c)) < 0.4)),
        }
        if image:
            tables = [(c, *image), (1, *image), (c, image[0], 1), (c, 1, image[1])]
            shape, other = (self.draw(st.sampled_from(tables)) for _ in range(2))
            steps["table"] = lambda: SpatialAffine(self.factors(shape), self.numbers(other, 1.0))
            kernel = tuple(self.draw(st.integers(1, min(3, size))) for size in image)
            direction = self.rng.choice([-1, 1], size=c if self.flip() else 1)
            steps["extreme"] = lambda: ExtremePool(kernel, (1, 1), tuple(k // 2 for k in kernel), direction)
        if not self.dyadic:
            steps["sigmoid"], steps["swish"] = Sigmoid, HardSwish
            steps["mean"] = lambda: Mean("channels")
            steps |= self.attention()
        kinds = sorted(steps)
        for kind, fits in (
            ("add channels", lambda t: t.shape[1:] == self.at.shape[1:] and t.shape[0] <= c),
            ("concat", lambda t: t.shape[1:] == self.at.shape[1:] and t.format.is_real),
            ("mul", lambda t: len(t.shape) == len(self.at.shape) and t.shape[1:] == self.at.shape[1:]
             and t.shape[0] in (1, c)),
        ):  # fmt: skip
            if any(map(fits, earlier)):
                kinds.append(kind)
        kind = self.draw(st.sampled_from(kinds))
        if kind in steps:
            self.step(kind, steps[kind]())
        elif kind == "add channels":
            other = self.draw(
                st.sampled_from([t for t in earlier if t.shape[1:] == self.at.shape[1:] and t.shape[0] <= c])
            )
            first = self.draw(st.integers(0, c - other.shape[0]))
            self.step("more", AddChannels(other.name, self.factors(other.shape[0]), first))
        elif kind == "concat":
            other = self.draw(
                st.sampled_from([t for t in earlier if t.shape[1:] == self.at.shape[1:] and t.format.is_real])
            )
            if not self.at.format.is_real:
                self.step("numbers", Affine(1.0, 0.0))
            self.step("concat", Concat(other.name, other.shape[0]))
        else:
            fits = [t for t in earlier if len(t.shape) == len(self.at.shape) and t.shape[1:] == self.at.shape[1:]]
            other = self.draw(st.sampled_from([t for t in fits if t.shape[0] in (1, c)]))
            self.step("mul", Mul(other.name))

    def attention(self):
        """Steps of networks that attend; a matrix is multiplied by itself, rows by rows."""
        shape, steps = self.at.shape, {"erf": Erf, "silu": Silu, "gelu": lambda: Gelu(self.draw(form))}
        form, axis = st.sampled_from(["erf", "tanh"]), st.integers(0, len(shape) - 1)
        axes = st.lists(axis, min_size=1, unique=True).map(sorted).map(tuple)
        steps["soft maxima"] = lambda: Softmax(self.draw(axis))
        steps["layer norm"] = lambda: LayerNorm(
            self.draw(axes), 0.1, self.factors((shape[0], *(1,) * (len(shape) - 1))), is_centred=self.flip()
        )
        steps["turn"] = lambda: Permute(tuple(self.draw(st.permutations(range(len(shape))))))
        if len(shape) > 1:
            steps["reshape"] = lambda: Reshape((*shape[1:], shape[0]))
            steps["gram"] = lambda: MatMul(self.at.name, shape[-2], is_transposed=True)
        return steps

    def real_product(self):
        c, *image = self.at.shape
        n = self.draw(st.integers(1, 4))
        if not image:
            self.step("real", RealProduct("linear", self.factors((n, c)), self.numbers(n, 1.0)))
            return
        kernel = tuple(self.draw(st.integers(1, min(2, size))) for size in image)
        stride = self.draw(st.integers(1, 2)), self.draw(st.integers(1, 2))
        padding = self.draw(st.integers(0, 1)), self.draw(st.integers(0, 1))
        weights = self.factors((n, c, *kernel))
        self.step("real", RealProduct("conv2d", weights, self.numbers(n, 1.0), stride, padding))

    def pool(self):
        if len(self.at.shape) != 3:
            return
        kind = self.draw(st.sampled_from([MaxPool, AvgPool]))
        kernel = tuple(self.draw(st.integers(1, min(3, size))) for size in self.at.shape[1:])
        if kind is AvgPool and self.dyadic:
            kernel = tuple(min(k, 2) for k in kernel)
        padding = tuple(self.draw(st.integers(0, k // 2)) for k in kernel)
        stride = tuple(self.draw(st.integers(1, 2)) for _ in kernel)
        self.step("pool", kind(kernel, stride, padding))

    def end(self):
        if len(self.at.shape) == 3 and self.flip():
            self.step("flatten", Flatten())
        if len(self.at.shape) == 1 and self.flip():
            self.step("softmax", LogSoftmax())


@st.composite
def graphs(draw, *, dyadic=False, most_layers=3, grouped=True, recurrent=True, ends=1):
    """Small networks as `capture` writes them, one product or one step an op; *dyadic*: float64 never rounds.

    *grouped*: products may have scales for groups of inputs. *recurrent*: some take sequences and may begin with an
    LSTM or a GRU. *ends*: how many inputs there are at most, and how many outputs.
    """
    is_sequence = recurrent and not dyadic and draw(st.integers(0, 3)) == 0
    if is_sequence:
        shape = (draw(st.integers(1, 6)), 1, draw(st.integers(1, 9)))
    elif draw(st.booleans()):
        shape = (draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    else:
        shape = (draw(st.integers(1, 40)),)
    start = Tensor("x", shape, REAL)
    net = _Network(draw, np.random.default_rng(draw(seeds())), dyadic, grouped)
    net.at = start
    net.inputs.append(start)
    formats = code_formats((1.0, 0.5) if dyadic else (1.0, 0.5, 0.37))
    zeros = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0, 2.0, *([] if dyadic else [0.3])])
    with_zeros = st.builds(lambda form, zero: replace(form, zero=zero), formats, zeros)
    n_inputs = draw(st.integers(1, ends))
    net.codes(draw(formats if is_sequence else with_zeros))  # hidden states begin at code 0
    earlier = [net.at]
    if is_sequence:
        for _ in range(draw(st.integers(1, 2))):
            net.recurrence()
        earlier.append(net.at)
    n_layers = draw(st.integers(1, most_layers))
    for layer in range(n_layers):
        if len(net.at.shape) == 3 and draw(st.integers(0, 3)) == 0:
            net.step("flatten", Flatten())
            earlier.append(net.at)
        net.product()
        if len(net.inputs) < n_inputs:
            net.join_input(formats)
        net.digital(earlier)
        if layer < n_layers - 1 or draw(st.booleans()):
            if draw(st.booleans()):
                earlier.append(net.at)
            net.codes(draw(with_zeros))
            earlier.append(net.at)
            if draw(st.integers(0, 3)) == 0 and len(net.at.shape) == 3:
                k = draw(st.integers(1, min(2, *net.at.shape[1:])))
                net.step("pool", MaxPool((k, k), (k, k)))
                earlier.append(net.at)
    net.end()
    while len(net.inputs) < n_inputs:
        net.join_input(formats)
    others = [op.output.name for op in net.ops if op.output.name != net.at.name]
    others = draw(st.lists(st.sampled_from(others), max_size=ends - 1, unique=True)) if ends > 1 else []
    outputs = draw(st.permutations([net.at.name, *others])) if others else [net.at.name]
    return Graph(name="random", inputs=tuple(net.inputs), ops=tuple(net.ops), outputs=tuple(outputs))


def inputs_of(graph: Graph, n: int, seed: int = 0) -> np.ndarray | dict[str, np.ndarray]:
    """Return *n* samples for *graph*, whole multiples of 1/8; of several inputs by their names."""
    rng = np.random.default_rng(seed)
    found = {t.name: np.round(rng.normal(size=(n, *t.shape)) * 2 * 8) / 8 for t in graph.inputs}
    return found if len(found) > 1 else found[graph.input.name]


def same_outputs(found, expected) -> bool:
    """Whether outputs, alone or by their names, are the same bits."""
    if not isinstance(expected, dict):
        return np.array_equal(found, expected)
    return list(found) == list(expected) and all(np.array_equal(found[name], expected[name]) for name in expected)


# --- programs -------------------------------------------------------------------------------------------------------


@st.composite
def programs(draw, *, most_tasks=10, most_items=40):
    """Random tasks in dependency order, for the event engine; some units have several servers."""
    tasks, servers = [], {f"unit{i}": draw(st.sampled_from([1, 1, 2, 4])) for i in range(4)}
    for i in range(draw(st.integers(1, most_tasks))):
        unit = f"unit{draw(st.integers(0, 3))}"
        others = st.lists(st.sampled_from(range(i)), max_size=2, unique=True) if i else st.just([])
        tasks.append(
            Task(
                f"t{i}",
                f"layer{i // 3}",
                unit,
                n_items=draw(st.integers(1, most_items)),
                work_ps=draw(st.integers(0, 5000)),
                lag_ps=draw(st.sampled_from([0, 1, 700])),
                actions=Counter({f"act{draw(st.integers(0, 2))}": draw(st.integers(1, 99))}),
                after=tuple(f"t{j}" for j in draw(others)),
                streams=tuple(f"t{j}" for j in draw(others)),
                behind=tuple(f"t{j}" for j in draw(others)),
                n_servers=draw(st.integers(1, servers[unit])),
            )
        )
    return Program(tuple(tasks), servers)


def plane_sum(codes, bits=1) -> PlaneSum:
    """Return whole-number *codes* as weights of *bits* bits."""
    return (ternary() if bits == 1 else sign_magnitude(bits)).plane_sum(np.asarray(codes))


# --- workloads -------------------------------------------------------------------------------------------------------


class Fixed(Workload):
    """A workload with a graph and a test set at hand, without torch."""

    def __init__(self, graph, samples=None):
        super().__init__(graph.name, None)
        object.__setattr__(self, "_graph", graph)
        object.__setattr__(self, "_samples", samples)

    def graph(self):
        return self._graph

    @property
    def metric(self):
        return METRICS["accuracy"]

    @property
    def has_data(self):
        return self._samples is not None

    def data(self, folder=None):
        if self._samples is None:
            raise DataError("tiny: data(): missing")
        return self._samples
