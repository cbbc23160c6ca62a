"""The workload: operators in dependency order, each with its product, its digital steps, and its shapes.

An `Op` is ``steps(product(input))``, where the product may be absent. A graph as captured has one product or one step
an op; `imcsim.graph.passes` joins them, so that a layer of the network becomes one op. A graph knows no chip.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np

from imcsim.errors import DataError, GraphError
from imcsim.graph.assumption import Assumed
from imcsim.graph.attention import MatMul
from imcsim.graph.epilogue import ArgMax
from imcsim.graph.formats import REAL, Format
from imcsim.graph.recurrent import PARTS, Cell, Embedding
from imcsim.graph.steps import Joining, Quantize, Shape, Step, Threshold, window_shape
from imcsim.records import NO_FIGURE, Record
from imcsim.ternary import PlaneSum, no_values


@dataclass(frozen=True)
class Tensor:
    """Numbers that go from one op to others."""

    name: str

    shape: Shape
    """Without the batch: (c) or (c h w)."""

    format: Format

    @property
    def n_values(self) -> int:
        """How many numbers one sample has."""
        return prod(self.shape)

    @property
    def n_bits(self) -> int:
        """How many bits one sample takes in a buffer."""
        return self.n_values * self.format.bits


@dataclass(frozen=True)
class LayerAttrs:
    """What differs silently between published codes and must be said (quantizers.md B.4)."""

    pad_value: int = 0
    """Code that the padding of a convolution brings in: any code of the input's format."""

    sign_zero: int = 1
    """Code of an input of exactly 0 under a sign activation."""

    rounding: Literal["half-even"] = "half-even"
    """What an even grid does with halves; PyTorch's rule."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Record):
    """A convolution, a linear map or the map of a recurrent layer, whose weights are planes: what tiles do."""

    kind: Literal["conv2d", "linear", "lstm", "gru", "matmul"]
    """lstm, gru: one vector a time step of (i 1 t), its rows the input's codes and then the h of the hidden state.
    matmul: matrices (g ... m d) by others that are written into the tiles for each sample; `Op.written` says which."""

    weights: PlaneSum
    """conv2d: (c_out, c_in / groups, kh, kw); linear: (c_out, c_in); lstm, gru: (4 h, i + h), `recurrent` says how;
    matmul: (g * n, d) without values, a group for each place of the axes before the matrices."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    attrs: LayerAttrs = LayerAttrs()

    n_experts: int = 1
    """Kernels of one shape, all of them held, of which each sample uses one: the first axis has one's outputs after
    another's, and the op's `gate` says which is meant."""

    def __post_init__(self) -> None:
        ndim = 4 if self.kind == "conv2d" else 2
        if len(self.weights.shape) != ndim:
            raise GraphError(f"{self.kind}: weights must have {ndim} axes, got shape {self.weights.shape}")
        if self.is_recurrent:
            self._check_recurrent()
        if self.n_experts != 1:
            self._check_experts()
        if self.groups < 1 or self.weights.shape[0] % self.groups:
            raise GraphError(f"{self.kind}: groups must divide the {self.weights.shape[0]} outputs, got {self.groups}")

    def _check_experts(self) -> None:
        weights, n = self.weights, self.n_experts
        if n < 1 or weights.shape[0] % n:
            raise GraphError(f"{self.kind}: n_experts must divide the {weights.shape[0]} outputs, got {n}")
        is_plain = weights.scale.size == 1 and weights.factors.ndim == 1 and weights.offset.size == 1
        if self.groups != 1 or self.is_recurrent or weights.is_asymmetric or weights.is_grouped or not is_plain:
            raise GraphError(
                f"{self.kind}: kernels to choose from must be symmetric, in one group, with one scale for all of them; "
                f"got {n} that are not"
            )

    def _check_recurrent(self) -> None:
        n_columns, n_rows = self.weights.shape
        is_plain = self.groups == 1 and not self.weights.is_asymmetric and not self.weights.is_grouped
        if n_columns % PARTS or n_rows <= self.n_hidden or not is_plain:
            raise GraphError(
                f"{self.kind}: weights must be symmetric, (4 h, i + h), in one group with one scale an output, got "
                f"shape {self.weights.shape}"
            )
        a, b = (slice(part * self.n_hidden, (part + 1) * self.n_hidden) for part in (2, 3))
        planes, n_inputs = self.weights.planes, n_rows - self.n_hidden
        if (
            self.kind == "gru"
            and self.weights.has_values
            and (np.any(planes[:, a, n_inputs:]) or np.any(planes[:, b, :n_inputs]))
        ):
            raise GraphError(
                "gru: weights must be 0 where the candidate's sum over the input meets the hidden state, and the other "
                "way round, got others"
            )

    @property
    def is_recurrent(self) -> bool:
        """Whether each vector holds what came of the vector before."""
        return self.kind in ("lstm", "gru")

    @property
    def n_hidden(self) -> int:
        """Hidden units; 0 where there is no recurrence."""
        return self.weights.shape[0] // PARTS if self.is_recurrent else 0

    @property
    def n_weights(self) -> int:
        """Weights of all kernels, without those of a GRU that are 0 whatever was learned."""
        n_fixed = self.n_hidden * self.n_rows if self.kind == "gru" else 0
        return prod(self.weights.shape) - n_fixed

    @property
    def is_whole(self) -> bool:
        """Whether the sums of whole-number codes are whole numbers."""
        return self.weights.is_whole and not self.weights.is_grouped

    @cached_property
    def row_groups(self) -> tuple[int, ...]:
        """Rows of each input group, in the order in which tiles hold them; one group where inputs share a scale.

        Each has blocks of its own, since its sums are scaled before they are added to those of others.
        """
        weights = self.weights
        if weights.group_size is None:
            return (self.n_rows,)
        n_inputs, size, window = weights.shape[1], weights.group_size, prod(self.kernel)
        sizes = [min(size, n_inputs - start) for start in range(0, n_inputs, size)]
        return tuple(sizes * window) if self.splits_window else tuple(n * window for n in sizes)

    @property
    def splits_window(self) -> bool:
        """Whether each position of the window has input groups of its own."""
        scale = self.weights.group_scale
        return scale is not None and prod(scale.shape[2:]) > 1

    @cached_property
    def group_factors(self) -> np.ndarray:
        """What the sums of each input group count for: float64 (row groups, c_out), in the order of `row_groups`."""
        scale = self.weights.group_scale
        assert scale is not None, "asked of grouped weights alone"
        return np.ascontiguousarray(
            np.moveaxis(scale.reshape(*scale.shape[:2], -1), (2, 1), (0, 1)).reshape(-1, len(scale))
        )

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the window; (1, 1) for a linear map."""
        return self.weights.shape[2:] if self.kind == "conv2d" else (1, 1)  # type: ignore[return-value]

    @property
    def n_planes(self) -> int:
        """How many weight planes."""
        return self.weights.n_planes

    @property
    def n_rows(self) -> int:
        """Inputs of one output: the rows that one group takes."""
        return prod(self.weights.shape[1:])

    @property
    def n_columns(self) -> int:
        """Outputs of one group: the columns that one weight plane of it takes."""
        return self.n_outputs // self.groups

    @property
    def n_outputs(self) -> int:
        """Outputs, or channels of them, that come out for one sample."""
        return self.weights.shape[0] // self.n_experts

    @cached_property
    def experts(self) -> tuple["Product", ...]:
        """Each of the kernels that there are to choose from, as a product of its own."""
        starts = range(0, self.weights.shape[0], self.n_outputs)
        parts = (self.weights.planes[:, start : start + self.n_outputs] for start in starts)
        return tuple(replace(self, weights=replace(self.weights, planes=part), n_experts=1) for part in parts)

    def shape(self, shape: Shape) -> Shape:
        """Return the shape that comes out for an input of *shape*."""
        if self.kind == "linear":
            if shape != (self.weights.shape[1],):
                raise GraphError(f"linear: must get {self.weights.shape[1]} inputs, got shape {shape}")
            return (self.n_outputs,)
        if self.kind == "matmul":
            if prod(shape[:-2]) != self.groups or shape[-1] != self.n_rows:
                raise GraphError(f"matmul: must get {self.groups} matrices (m {self.n_rows}), got shape {shape}")
            return (*shape[:-1], self.n_columns)
        if self.is_recurrent:
            n_inputs = self.n_rows - self.n_hidden
            if len(shape) != 3 or shape[:2] != (n_inputs, 1):
                raise GraphError(f"{self.kind}: must get a sequence ({n_inputs} 1 t), got shape {shape}")
            return (self.weights.shape[0], *shape[1:])
        if len(shape) != 3 or shape[0] != self.weights.shape[1] * self.groups:
            raise GraphError(f"conv2d: must get {self.weights.shape[1] * self.groups} channels, got shape {shape}")
        window = window_shape(shape, self.kernel, self.stride, self.padding, self.dilation)
        return (self.n_outputs, *window[1:])

    @cached_property
    def matrix(self) -> np.ndarray:
        """The weights as tiles hold them: int8 (j g r c), plane after plane, group after group; kernels are groups.

        The rows of a convolution run over (kh, kw, c_in / groups): one kernel position after the other, so that
        neighbouring rows come from one pixel. Where inputs are grouped over the whole window, one input group comes
        after the other, each in that order. Those of a recurrent layer are the input's, then the hidden state's.
        """
        planes = self.weights.planes
        n_groups = self.groups * self.n_experts
        planes = planes.reshape(len(planes), n_groups, self.n_columns, *planes.shape[2:])
        if self.kind == "conv2d":
            planes = planes.transpose(0, 1, 4, 5, 3, 2)  # j g c i kh kw -> j g kh kw i c
        else:
            planes = planes.transpose(0, 1, 3, 2)
        matrix = planes.reshape(len(planes), n_groups, self.n_rows, self.n_columns)
        if self.weights.group_size is not None and not self.splits_window:
            rows = np.arange(self.n_rows).reshape(-1, self.weights.shape[1])  # window, input
            cuts = range(self.weights.group_size, self.weights.shape[1], self.weights.group_size)
            matrix = matrix[:, :, np.concatenate([part.ravel() for part in np.split(rows, cuts, axis=1)])]
        return np.ascontiguousarray(matrix)


@dataclass(frozen=True, eq=False, kw_only=True)
class Op(Record):
    """One layer: ``steps(product(input))``."""

    name: str

    input: str
    """Name of the tensor that goes in; a step may read a further one."""

    output: Tensor
    product: Product | None = None
    steps: tuple[Step, ...] = ()

    gate: str | None = None
    """Name of the tensor (1) that says for each sample which of the product's kernels is meant; made by an `ArgMax`."""

    written: MatMul | None = None
    """Of a product of kind matmul: what it is, and which tensor's codes tiles are written with for each sample."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all tensors that the op reads."""
        written = () if self.written is None else (self.written.other,)
        first, *others = self.streamed
        return (first, *written, *others)

    @property
    def streamed(self) -> tuple[str, ...]:
        """Names of the tensors that go by vector after vector: all but the one that is written into tiles."""
        gate = () if self.gate is None else (self.gate,)
        return (self.input, *gate, *(step.other for step in self.steps if isinstance(step, Joining)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Graph(Record):
    """A network: the tensors that go in, ops in dependency order, the names of the tensors that come out."""

    name: str

    inputs: tuple[Tensor, ...]
    """Each is read by an op."""

    ops: tuple[Op, ...]

    outputs: tuple[str, ...]
    """Each is made by an op, and may be read by others. The first one is what the network is judged by."""

    assumed: Assumed | None = field(default=None, metadata=NO_FIGURE)
    """What was assumed of it; such a network has no values."""

    def __post_init__(self) -> None:
        shapes = {tensor.name: tensor for tensor in self.inputs}
        if not self.inputs or len(shapes) < len(self.inputs):
            names = ", ".join(tensor.name for tensor in self.inputs)
            raise GraphError(f"{self.name}: inputs must be one or more of different names, got {names or 'none'}")
        choices: dict[str, int] = {}
        for op in self.ops:
            for name in op.inputs:
                if name not in shapes:
                    raise GraphError(f"{op.name}: must read a tensor that was made before, got {name!r}")
            if not self.is_input(op.input) and any(isinstance(step, Embedding) for step in op.steps):
                raise GraphError(f"{op.name}: embedding must read an input of the network, got {op.input!r}")
            n_experts = op.product.n_experts if op.product is not None else 1
            if (op.gate is None) != (n_experts == 1) or (op.gate is not None and choices.get(op.gate) != n_experts):
                raise GraphError(
                    f"{op.name}: {n_experts} kernels to choose from must have a gate that chooses one of them, an arg "
                    f"max of as many numbers, got {op.gate!r}"
                )
            if op.steps and isinstance(op.steps[-1], ArgMax):
                choices[op.output.name] = op.steps[-1].n_choices
            if op.output.name in shapes:
                raise GraphError(f"{op.name}: tensor {op.output.name!r} is made twice; names must differ")
            shape, fmt = self._walk(op, shapes)
            if shape != op.output.shape:
                raise GraphError(f"{op.name}: its steps give shape {shape}, got {op.output.shape} declared")
            if fmt is not None and fmt != op.output.format:
                raise GraphError(f"{op.name}: its steps give {fmt} codes, got {op.output.format} declared")
            shapes[op.output.name] = op.output
        self._check_ends(made=set(shapes))
        if len({op.name for op in self.ops}) < len(self.ops):
            raise GraphError(f"{self.name}: ops must have different names")

    def _check_ends(self, made: set[str]) -> None:
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            names = ", ".join(self.outputs)
            raise GraphError(f"{self.name}: outputs must be one or more different tensors, got {names or 'none'}")
        for name in self.outputs:
            if name not in made:
                raise GraphError(f"{self.name}: output must be a tensor of the graph, got {name!r}")
            if self.is_input(name):
                raise GraphError(f"{self.name}: output must be made by an op, got the input {name!r}; leave it out")
        read = {name for op in self.ops for name in op.inputs}
        if unread := [tensor.name for tensor in self.inputs if tensor.name not in read]:
            raise GraphError(
                f"{self.name}: input {unread[0]!r} must be read by an op, got none that does; leave it out"
            )

    @staticmethod
    def _walk(op: Op, tensors: dict[str, Tensor]) -> tuple[Shape, Format | None]:
        source = tensors[op.input]
        shape, fmt = source.shape, None
        now = source.format if op.product is None else REAL
        try:
            if op.product is not None:
                source.format.codec()  # a tile takes codes
                if source.format.kind == "bases" and op.product.weights.is_grouped:
                    raise GraphError(f"{op.product.kind}: inputs of several bases must meet weights of one group")
                if (op.product.kind == "matmul") != (op.written is not None):
                    raise GraphError(f"{op.product.kind}: a matmul, and it alone, must say what is written into tiles")
                if op.written is not None:
                    op.written.require_fit(shape, tensors[op.written.other].shape)
                    tensors[op.written.other].format.codec()
                shape = op.product.shape(shape)
                if np.any(op.product.weights.offset != 0):
                    raise GraphError(
                        f"{op.product.kind}: weights must be planes without an offset, got an offset; take it apart "
                        "with imcsim.graph.offsets"
                    )
                pad = op.product.attrs.pad_value
                if pad and not source.format.low <= pad <= source.format.high:
                    raise GraphError(f"{op.product.kind}: padding must bring in a code of {source.format}, got {pad}")
            _check_whole_op(op, source.format)
            is_affine = source.format.is_real or source.format.is_affine or op.product is not None
            for step in op.steps:
                if isinstance(step, Joining):
                    step.require_fit(shape, tensors[step.other].shape)
                    other = tensors[step.other].format
                    if step.keeps_codes and other != now and not (other.is_real and now.is_real):
                        raise GraphError(
                            f"{type(step).__name__.lower()}: must get numbers of one format, got {now} and {other}; "
                            "make real numbers of codes first"
                        )
                    if not step.keeps_codes and not (other.is_real or other.is_affine):
                        raise GraphError(
                            f"{type(step).__name__.lower()}: must get numbers or symmetric codes beside, got {other} "
                            f"in {step.other!r}; such codes go to products alone"
                        )
                shape = step.shape(shape)
                if not is_affine and not step.keeps_codes:
                    kind = "levels of bases" if source.format.kind == "bases" else "asymmetric codes"
                    raise GraphError(f"{kind} must go to products alone, got a digital step behind them")
                if isinstance(step, Threshold | Quantize | Cell | Embedding | ArgMax):
                    fmt = now = step.format
                elif not step.keeps_codes:  # these make real numbers of codes
                    fmt, now = None, REAL
        except GraphError as error:
            raise GraphError(f"{op.name}: {error}") from None
        return shape, fmt

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        return {t.name: t for t in (*self.inputs, *(op.output for op in self.ops))}

    @property
    def input(self) -> Tensor:
        """The input of a graph that has one; raises GraphError where there are several."""
        if len(self.inputs) > 1:
            names = ", ".join(tensor.name for tensor in self.inputs)
            raise GraphError(f"{self.name}: must have one input here, got {len(self.inputs)}: {names}")
        return self.inputs[0]

    @property
    def output(self) -> str:
        """The name of the output of a graph that has one; raises GraphError where there are several."""
        if len(self.outputs) > 1:
            names = ", ".join(self.outputs)
            raise GraphError(f"{self.name}: must have one output here, got {len(self.outputs)}: {names}")
        return self.outputs[0]

    def is_input(self, tensor: str) -> bool:
        """Whether *tensor* is one that goes in."""
        return any(tensor == each.name for each in self.inputs)

    @property
    def products(self) -> tuple[Op, ...]:
        """The ops that run on tiles."""
        return tuple(op for op in self.ops if op.product is not None)

    @property
    def has_values(self) -> bool:
        """Whether all weights and codes are known, so that outputs can be computed, and not their shapes alone."""
        weights = (op.product.weights for op in self.ops if op.product is not None and op.written is None)
        return self.assumed is None and all(each.has_values for each in weights)

    def require_values(self) -> None:
        """Raise DataError where outputs cannot be computed."""
        if self.assumed is not None:
            raise DataError(no_values(self.name, f"weights and codes of assumed bits ({self.assumed.bits})"))
        if not self.has_values:
            raise DataError(no_values(self.name))

    def is_asymmetric(self, op: Op) -> bool:
        """Whether -1 counts for something else than +1 in the weights or the inputs of a product."""
        assert op.product is not None
        return op.product.weights.is_asymmetric or self.tensors[op.input].format.minus != 1

    def n_macs(self, op: Op) -> int:
        """Multiply-accumulates of one sample in *op*, one per pair of weight and activation, whatever their planes."""
        if op.product is None:
            return 0
        return op.product.n_weights // op.product.n_experts * self.n_vectors(op)

    def n_vectors(self, op: Op) -> int:
        """Input vectors that one sample sends through each group: output positions, time steps, 1 for linear."""
        assert op.product is not None
        shape = self.tensors[op.input].shape
        return shape[-2] if op.written is not None else prod(op.product.shape(shape)[1:])

    def replace_ops(self, ops: tuple[Op, ...]) -> "Graph":
        """Return the same graph with other ops."""
        return replace(self, ops=ops)


def _check_whole_op(op: Op, source: Format) -> None:
    """Raise GraphError where a cell or an embedding is not the one step of its op."""
    kind = op.product.kind if op.product is not None and op.product.is_recurrent else None
    cells = [step for step in op.steps if isinstance(step, Cell | Embedding)]
    if kind is None and not cells:
        return
    if len(op.steps) != 1 or not cells:
        raise GraphError(f"{kind or 'embedding'}: its op must have one step alone, got {len(op.steps)}")
    step = cells[0]
    if isinstance(step, Embedding):
        if op.product is not None:
            raise GraphError("embedding: must come without a product, got one")
    elif source.zero:
        raise GraphError(f"{kind}: must get codes whose zero is code 0, got {source.zero:g}")
    elif step.kind != kind:
        raise GraphError(f"cell: must follow a product of its kind, {step.kind}, got {kind or 'none'}")
    elif step.format != source:
        raise GraphError(
            f"cell: its codes must have the format of the layer's input, {source} of scale {source.scale}, got "
            f"{step.format} of scale {step.format.scale}"
        )
