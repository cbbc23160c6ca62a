"""What goes where and when: which shard of which layer's weight planes sits in which tile in which round.

A product of one group is a matrix of `n_rows` inputs by `n_columns` = outputs x weight planes, the planes of one
output side by side, so that one access reads them together. The matrix is cut into shards: whole blocks of rows, and
segments of columns that hold all planes of their outputs.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import floor
from typing import Literal

import numpy as np

from imcsim.arch.spec import Chip
from imcsim.arrays import greatest
from imcsim.errors import ConfigError
from imcsim.graph import Graph, Op
from imcsim.mapping.digital import digital_work, is_on_host
from imcsim.ternary import Codec

Style = Literal["spatial", "temporal", "pipelined"]


def blocks_of_groups(row_groups: tuple[int, ...], rows_per_access: int) -> int:
    """Return how many blocks *row_groups* take, each in blocks of its own.

    >>> blocks_of_groups((4, 4, 17), 16)
    4
    """
    return sum(-(-n_rows // rows_per_access) for n_rows in row_groups)


def places_of(graph: Graph, style: Style) -> dict[str, int]:
    """Return for each tensor that an op makes how many inferences the activation buffer holds it of.

    One; pipelined one for each layer from the one that makes it to the last that reads it, since each of them may be
    at work for another inference.
    """
    last_reader = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
    return {
        op.output.name: max(0, last_reader.get(op.output.name, i) - i) + 1 if style == "pipelined" else 1
        for i, op in enumerate(graph.ops)
    }


@dataclass(frozen=True)
class Shard:
    """The part of a layer's weight planes that sits in one tile, in one replica."""

    layer: str
    group: int
    replica: int
    """Which copy of the layer; each copy takes its share of the input vectors."""

    row_start: int
    row_stop: int
    column_start: int
    column_stop: int
    """Rows and columns of the group's matrix."""

    tile: int
    block: int
    """First block of the tile that it fills."""

    column: int
    """First column of the tile that it fills."""

    row_groups: tuple[int, ...] = ()
    """Rows of each input group in it, which has blocks and sums of its own; none: one group."""

    @property
    def n_rows(self) -> int:
        """Rows of weights."""
        return self.row_stop - self.row_start

    @property
    def n_columns(self) -> int:
        """Columns of weights."""
        return self.column_stop - self.column_start

    @property
    def n_sums(self) -> int:
        """Sums that it gives of each of its columns."""
        return max(1, len(self.row_groups))

    def n_blocks(self, rows_per_access: int) -> int:
        """Blocks that it fills, the last one of each input group perhaps in part."""
        return blocks_of_groups(self.row_groups or (self.n_rows,), rows_per_access)


@dataclass(frozen=True)
class Round:
    """What is resident at one time of one layer."""

    shards: tuple[Shard, ...]

    @cached_property
    def tiles(self) -> tuple[int, ...]:
        """The tiles in use, ascending."""
        return tuple(sorted({shard.tile for shard in self.shards}))


@dataclass(frozen=True)
class PsumFlow:
    """What one round of a layer does with psums, all input vectors together."""

    n_written: int
    """Psums that the PCUs hand out."""

    n_read: int
    """Psums that the reduce unit takes: those of the outputs whose last psums are of this round."""

    n_outputs: int
    """Sums that these make."""

    spilt_bits: int
    """What goes on to main memory: psums of outputs that a later round completes, beyond half of the buffer."""

    fetched_bits: int
    """What comes back from there."""

    parts_per_vector: int
    """Into how many pieces the psums of a vector are cut, so that the buffer takes one while another is read."""

    room: int
    """Pieces that the buffer holds."""


@dataclass(frozen=True)
class LayerPlan:
    """How one op of the graph runs."""

    name: str
    n_samples: int
    """The batch."""

    n_vectors: int = 0
    """Input vectors that go through each group, all samples together; 0 without a product."""

    n_steps: int = 0
    """Time steps of a recurrent layer, one after the other: so many of a sample's vectors wait for each other."""

    n_groups: int = 0
    n_experts: int = 1
    """Kernels that tiles hold, each as many groups, of which a sample uses one. What is counted and timed is one, the
    first: the others have as many cells, cut and copied alike."""

    n_rows: int = 0
    """Inputs of one group."""

    row_groups: tuple[int, ...] = ()
    """Rows of each input group that has a scale of its own, and so blocks of its own; none: all rows are added up."""

    n_columns: int = 0
    """Outputs of one group times weight planes."""

    n_weight_planes: int = 0
    n_passes: int = 0
    """Activation planes, sent one after the other."""

    accesses_per_pass: int = 1
    """Accesses that one pass needs of each block: 2 for asymmetric encodings with negative inputs on bitlines."""

    sense: Literal["both", "n", "words"] = "both"
    """What is read of a column: n and k; n alone where n + k is the number of rows; the word itself, near memory."""

    bits_per_digit: int = 0
    """Bits of one activation digit on its way to a row driver."""

    written_bits: int = 0
    """Bits of a code of the operand that is written into tiles for each sample; 0: the weights are the model's."""

    n_row_chunks: int = 0
    """Into how many chunks of rows a group is cut; each gives a psum of its own."""

    n_row_sums: int = 0
    """How many sums of its rows each column gives: one a chunk, or one for each input group in it."""

    n_replicas: int = 0
    psum_bits: int = 0
    """Bits that the largest sum of the layer takes."""

    rounds: tuple[Round, ...] = ()
    held: tuple[Shard, ...] = ()
    """Shards of the other kernels, which lie in the tiles beside."""

    skipped_share: float = 0.0
    """Share of its accesses that a chip leaves out because they drive no input; see `Plan.skipping`."""

    digital: tuple[tuple[str, int], ...] = ()
    """Element operations of its steps by lane, all samples together."""

    is_gathered: bool = False
    """Whether its steps need sums of several outputs or vectors at a time, so that one bank does them all."""

    home: int = 0
    """The bank, counted over all chips, that does what is done in one bank."""

    goes_to: tuple[int, ...] = ()
    """Where there are several banks: those that take its whole output; none: each that makes a part keeps that."""

    @property
    def is_on_tiles(self) -> bool:
        """Whether the op has a product."""
        return self.n_vectors > 0

    @property
    def n_items(self) -> int:
        """Items that streams through the layer are cut into: its input vectors, or without a product its samples."""
        return self.n_vectors or self.n_samples

    @property
    def is_written(self) -> bool:
        """Whether its cells are written anew in every inference, with what a layer before has made."""
        return self.written_bits > 0

    @property
    def n_cells(self) -> int:
        """Cells of one copy, all groups and kernels together."""
        return self.n_groups * self.n_experts * self.n_rows * self.n_columns

    @property
    def stored(self) -> "LayerPlan":
        """The layer with all that is written into tiles: every kernel a group of its own."""
        if self.n_experts == 1:
            return self
        (round_,) = self.rounds
        whole = (Round((*round_.shards, *self.held)),)
        return replace(self, n_groups=self.n_groups * self.n_experts, n_experts=1, rounds=whole, held=())

    @cached_property
    def first_copy(self) -> dict[tuple[int, int, int], int]:
        """The first copy of each part of the weights: by group, first row and first column."""
        first: dict[tuple[int, int, int], int] = {}
        for s in (s for round_ in self.rounds for s in round_.shards):
            place = s.group, s.row_start, s.column_start
            first[place] = min(s.replica, first.get(place, s.replica))
        return first

    def is_first(self, shard: Shard) -> bool:
        """Whether *shard* is the copy that main memory is read for."""
        return self.first_copy[shard.group, shard.row_start, shard.column_start] == shard.replica

    @property
    def n_outputs(self) -> int:
        """Outputs of one group."""
        return self.n_columns // self.n_weight_planes

    @property
    def conversion(self) -> str:
        """The action that reads one column."""
        return {"both": "tile.convert", "n": "tile.convert_one", "words": "tile.multiply_add"}[self.sense]

    @property
    def psums_per_output(self) -> int:
        """Psums that the reduce unit gets for one output."""
        return self.n_row_sums * self.n_weight_planes

    @property
    def adds_per_output(self) -> int:
        """Additions of the reduce unit for one output; the sums of input groups are added where they are scaled."""
        return self.psums_per_output - max(1, len(self.row_groups))

    def n_blocks(self, rows_per_access: int) -> int:
        """Blocks that the rows of one group take."""
        return blocks_of_groups(self.row_groups or (self.n_rows,), rows_per_access)

    def accesses(self, round_: Round, rows_per_access: int) -> list[tuple[int, int]]:
        """Return for each shard of *round_* the accesses that its vectors ask for, and those that its tile takes.

        The two differ by what is skipped: in whole accesses, rounded along the shards, so that a round has its share to
        within half an access.
        """
        found, asked, taken = [], 0, 0
        for shard in round_.shards:
            n = self.vectors_of(shard.replica) * shard.n_blocks(rows_per_access) * self.n_passes
            n *= self.accesses_per_pass
            asked += n
            n_taken = floor(asked * (1 - self.skipped_share) + 0.5) - taken
            taken += n_taken
            found.append((n, n_taken))
        return found

    def accesses_of_steps(self, round_: Round, rows_per_access: int) -> list[tuple[int, int]]:
        """Return the same over all time steps of a recurrent layer, each of which is rounded by itself."""
        if not self.n_steps:
            return self.accesses(round_, rows_per_access)
        once = self.one_step.accesses(round_, rows_per_access)
        return [(asked * self.n_steps, taken * self.n_steps) for asked, taken in once]

    def psums_of(self, shard: Shard) -> int:
        """How many sums the PCUs hand out of *shard*, all input vectors together."""
        return self.vectors_of(shard.replica) * shard.n_columns * shard.n_sums

    def vectors_of(self, replica: int) -> int:
        """How many of the vectors one copy of the layer takes; all time steps of a sample go to one copy."""
        together = max(1, self.n_steps)
        n = self.n_vectors // together
        return (n // self.n_replicas + (replica < n % self.n_replicas)) * together

    @property
    def one_step(self) -> "LayerPlan":
        """One time step of a recurrent layer: a vector a sample."""
        return replace(self, n_vectors=self.n_samples, n_steps=0)

    def replica_of(self, vectors: np.ndarray) -> np.ndarray:
        """Which copy takes each of *vectors* (b), counted from the first of an inference: the copies take turns."""
        return vectors % self.n_vectors % self.n_replicas


@dataclass(frozen=True, eq=False)
class Plan:
    """A graph on a chip."""

    graph: Graph
    chip: Chip
    style: Style
    """spatial: all weights resident, written once, one inference after the other; temporal: weights written round
    after round from main memory; pipelined: all resident, several inferences at a time, each in another layer."""

    n_samples: int
    """Samples that one inference takes together."""

    layers: tuple[LayerPlan, ...]
    off_chip: frozenset[str]
    """Tensors that go through main memory because the activation buffer cannot hold them."""

    @cached_property
    def op_of(self) -> dict[str, Op]:
        """Each op by its name."""
        return {op.name: op for op in self.graph.ops}

    def skipping(self, idle_share: Mapping[str, float]) -> "Plan":
        """Return the plan with what its chip skips where *idle_share* of the accesses of each layer drive no input.

        Raises ConfigError where a name is not that of a layer on tiles.
        """
        on_tiles = [layer.name for layer in self.layers if layer.is_on_tiles]
        if unknown := sorted(set(idle_share) - set(on_tiles)):
            raise ConfigError(
                f"activity: idle_share must name layers on tiles ({', '.join(on_tiles)}), got {unknown[0]!r}"
            )
        if not self.chip.tile.skips_zero_blocks:
            return self
        layers = (replace(layer, skipped_share=idle_share.get(layer.name, 0.0)) for layer in self.layers)
        return replace(self, layers=tuple(layers))

    def lane_work(self, layer: LayerPlan) -> dict[str, int]:
        """Element operations of the layer's steps by lane, all samples together; none where the host does them."""
        op = self.op_of[layer.name]
        if is_on_host(op, self.graph):
            return {}
        return {lane: n * layer.n_samples for lane, n in digital_work(op, self.graph).items()}

    def is_on_host(self, layer: LayerPlan) -> bool:
        """Whether the host does the whole layer."""
        return is_on_host(self.op_of[layer.name], self.graph)

    def source_of_cells(self, layer: LayerPlan) -> str:
        """Return the action that brings what the cells of *layer* are written with."""
        written = self.op_of[layer.name].written
        return "main_memory.read" if written is None or written.other in self.off_chip else "activation_buffer.read"

    def writes_cells(self, layer: LayerPlan) -> bool:
        """Whether every inference writes the cells of *layer*."""
        return layer.is_written or self.style == "temporal"

    def codec(self, op: Op) -> Codec:
        """Return how the inputs of *op* are sent to the tiles of the chip, pass by pass."""
        return self.graph.tensors[op.input].format.codec(self.chip.tile.serial)

    def psum_flows(self, layer: LayerPlan) -> list[PsumFlow]:
        """Return what each round of *layer* does with psums; its outputs must take several each.

        Psums stay in the buffer until all those of an output are there. Where the shards of an output fall into several
        rounds, half of the buffer keeps what waits for a later round, and main memory the rest.
        """
        capacity = self.chip.psum_buffer.capacity_bits
        last_round: dict[tuple[int, int], int] = {}
        copies: dict[tuple[int, int], set[int]] = {}
        for r, round_ in enumerate(layer.rounds):
            last_round.update({(s.group, s.column_start): r for s in round_.shards})
            for s in round_.shards:
                copies.setdefault((s.group, s.column_start), set()).add(s.replica)
        rounds_of = Counter(
            place for round_ in layer.rounds for place in {(s.group, s.column_start) for s in round_.shards}
        )
        room_bits = capacity // 2 if max(rounds_of.values()) > 1 else capacity
        flows, kept, spilt = list[PsumFlow](), 0, 0
        for r, round_ in enumerate(layer.rounds):
            written = waiting = columns = 0  # columns of all vectors
            done = set()
            for s in round_.shards:
                n = layer.psums_of(s)
                written += n
                if last_round[s.group, s.column_start] > r:
                    waiting += n * layer.psum_bits
                elif (s.group, s.column_start) not in done:
                    done.add((s.group, s.column_start))
                    columns += s.n_columns * sum(map(layer.vectors_of, copies[s.group, s.column_start]))
            fetched = spilt if columns else 0
            if columns:
                kept = spilt = 0
            spills = greatest(0, kept + waiting - capacity // 2)
            kept, spilt = kept + waiting - spills, spilt + spills
            per_vector = -(-written * layer.psum_bits // layer.n_vectors)
            parts = -(-2 * per_vector // room_bits)
            outputs = columns // layer.n_weight_planes
            flows.append(PsumFlow(written, columns * layer.n_row_sums, outputs, spills, fetched,
                                  parts, greatest(2, room_bits // -(-per_vector // parts))))  # fmt: skip
        return flows

    @property
    def is_resident(self) -> bool:
        """Whether all weights stay in the tiles, written once before the first inference."""
        return self.style != "temporal"

    @cached_property
    def places_of(self) -> dict[str, int]:
        """For each tensor of inferences: how many of them the activation buffer holds it of."""
        return places_of(self.graph, self.style)

    @cached_property
    def n_cells(self) -> int:
        """Cells that hold a weight, replicas included."""
        return sum(s.n_rows * s.n_columns for layer in self.layers for r in layer.stored.rounds for s in r.shards)

    @cached_property
    def shards_of_tile(self) -> Counter[int]:
        """How many shards each tile ever holds."""
        return Counter(s.tile for layer in self.layers for r in layer.stored.rounds for s in r.shards)
