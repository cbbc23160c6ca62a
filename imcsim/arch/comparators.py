"""Machines that a network is compared on: one model for each way of counting what a layer costs there.

They are not placed and simulated: `imcsim.comparators` works out time and energy from a few published figures and the
layers of a lowered network (quantizers.md D). Where each figure comes from stands beside it, as in all chip files, and
every energy says what it covers, so that the power of an array is never read as that of a board.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from imcsim.arch.spec import Count, Figure, Machine, NotNegative, Positive, Probability, Sourced, Spec

Covers = Literal["array", "core", "chip", "board"]
"""array: one memory array with its periphery; core: the accelerator without host, memory and pads; chip: a whole die;
board: what a supply feeds, with memories and losses."""

Obtained = Literal["measured", "simulated", "rated", "modelled", "assumed"]
"""measured: on silicon; simulated: of a netlist or a layout; rated: a data sheet's limit; modelled: worked out from
other figures; assumed: nobody told."""

Plane = Literal["binary", "ternary", "bit"]
"""What one plane of an operand holds: binary {-1, +1}, ternary {-1, 0, +1}, bit {0, 1}."""

Planes = Annotated[tuple[Plane, ...], Field(min_length=1, strict=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Number = Annotated[int, Field(ge=0, le=64)]


class Process(Sourced):
    """The process that the machine is made in."""

    node_nm: Positive
    supply_V: Positive | None = None
    """None where it is not told; scaling takes the nominal one of the node then."""


class Operands(Sourced):
    """What the machine multiplies."""

    arithmetic: Literal["planes", "words"]
    """planes: one product a pair of planes, so layers of several planes take several; words: one a weight and input."""

    weights: Planes = ("binary", "ternary")
    """Planes that it holds as they are; others are written as sums of these."""

    activations: Planes = ("binary", "ternary", "bit")

    serial: Literal["bit", "trit"] = "bit"
    """How activations of several bits are sent: plane by plane of bits, or of balanced ternary digits, fewer."""

    adds_planes: bool = True
    """Whether it can add up the products of several planes; layers that need it are refused where it cannot."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.serial == "trit" and "ternary" not in self.activations:
            raise ValueError(f"serial: must be bit where activations are {' or '.join(self.activations)}, got trit")
        return self


class Utilization(Sourced):
    """How much of the peak a layer reaches."""

    share: Share


class Area(Sourced):
    """Area of the machine."""

    area_um2: Positive


class Power(Sourced):
    """Power while the machine works."""

    power_mW: NotNegative
    covers: Covers
    obtained: Obtained


class EnergyPerMac(Sourced):
    """Energy of one product, with everything that goes with it."""

    energy_pJ_per_mac: Positive
    covers: Covers
    obtained: Obtained


class Clock(Sourced):
    """The clock."""

    clock_GHz: Positive


class Comparator(Machine):
    """A machine whose time and energy are worked out by a formula."""

    taken_by = "imcsim compare"

    technology: Process
    operands: Operands
    area: Area | None = None
    """None where it is not told."""

    figures: dict[str, Figure] = Field(default_factory=dict)
    """What its paper prints, by name; never used in a computation."""


# XOR and popcount on processors


class Instructions(Sourced):
    """Instructions for the products of one word of weights with one of activations."""

    n_logic: Number
    n_pop: Number
    n_add: Number


class Issue(Sourced):
    """Instructions of each class that a core issues a cycle, and how much of that it keeps up."""

    logic_per_cycle: Positive
    pop_per_cycle: Positive
    add_per_cycle: Positive
    utilization: Share


class Cores(Sourced):
    """Cores that share a layer."""

    n_cores: Count
    word_bits: Count
    """Products of one instruction."""

    scaling: Probability = 1.0
    """What each further core adds, relative to the first."""


class Overhead(Sourced):
    """Cycles beside the products, all cores together."""

    output_cycles: NotNegative
    """For each output: store, scale, compare."""

    input_cycles: NotNegative
    """For each input of each plane: make it binary and pack it."""


class WordRate(Sourced):
    """Multiply-adds of whole words (floats, bytes) that one core reaches a cycle."""

    macs_per_cycle: Positive


class PopcountCpu(Comparator):
    """A processor that multiplies words of planes with XOR or AND and counts ones (quantizers.md D.2).

    A layer takes ``words * (n_logic / w_logic + n_pop / w_pop + n_add / w_add) / (u * cores) + c_out * outputs + c_in *
    inputs`` cycles, or as many as its multiply-adds take in whole words, whichever is less.
    """

    kind: Literal["popcount-cpu"]
    clock: Clock
    cores: Cores
    instructions: dict[str, Instructions]
    """By pair of planes, WEIGHTSxACTIVATIONS: binaryxbinary, ternaryxbit ..."""

    issue: Issue
    overhead: Overhead
    words: WordRate | None = None
    power: Power

    @model_validator(mode="after")
    def _check(self) -> Self:
        for weights in self.operands.weights:
            for activations in self.operands.activations:
                if f"{weights}x{activations}" not in self.instructions:
                    got = ", ".join(self.instructions) or "nothing"
                    raise ValueError(f"instructions: must have {weights}x{activations}, as operands says, got {got}")
        return self


# Layers side by side on FPGAs


class Fold(Spec):
    """How many products of one layer are worked out at a time."""

    n_outputs: Count
    n_inputs: Count


class Lanes(Sourced):
    """Lanes, each of one product of planes a cycle."""

    n_lanes: Count
    unrolls_window: bool = True
    """Whether the positions of a kernel's window can be taken side by side, not the channels alone."""

    most_inputs: Count | None = None
    """Inputs of an output that are taken side by side at most; None where nothing limits them."""

    serial_planes: Count = 1
    """Up to so many activation planes are sent one after the other; those of layers with more, as of pixels, together,
    by as many times the lanes."""

    folding: Annotated[tuple[Fold, ...], Field(strict=False)] = ()
    """The folding that its authors chose for a network of as many products; others are balanced over `n_lanes`."""


class Fabric(Sourced):
    """What the FPGA has, and what a lane takes of it."""

    n_luts: Count
    luts_per_lane: Positive
    memory_bits: Count
    """Block RAM: weights that do not fit are told, and taken as if they did."""


class FpgaDataflow(Comparator):
    """An FPGA with all layers side by side, images streaming through.

    A layer takes ``OH OW ceil(N / P_out) ceil(K / P_in)`` cycles an image, the slowest one says how many images a
    second; energy is ``static / rate + energy a product``.
    """

    kind: Literal["fpga-dataflow"]
    clock: Clock
    lanes: Lanes
    fabric: Fabric
    static: Power
    energy: EnergyPerMac

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = self.lanes.n_lanes * self.fabric.luts_per_lane
        if needed > self.fabric.n_luts * (1 + 1e-9):
            raise ValueError(
                f"lanes.n_lanes: must fit into the {self.fabric.n_luts} LUTs at {self.fabric.luts_per_lane:g} a lane, "
                f"got {self.lanes.n_lanes}"
            )
        return self


# Neuromorphic cores


class CoreGrid(Sourced):
    """Cores with a crossbar of axons and neurons each."""

    n_cores: Count
    """Of one chip; networks that need more take several chips."""

    n_axons: Count
    n_neurons: Count
    axons_per_input: Count
    """Lines that an input takes, so that its weights can be -1, 0 and +1."""


class Tick(Sourced):
    """Time steps a second: every layer hands on one plane a step."""

    ticks_per_s: Positive


class CorePower(Sourced):
    """What a chip takes always, and what a core that is used takes in a tick."""

    static_mW: NotNegative
    energy_pJ_per_core_tick: NotNegative
    covers: Covers
    obtained: Obtained


class NeuromorphicGrid(Comparator):
    """A grid of spiking cores: every output of every layer is a neuron of its own, and all layers work at once."""

    kind: Literal["neuromorphic-grid"]
    grid: CoreGrid
    tick: Tick
    power: CorePower


# Gated products


class Events(Sourced):
    """What a product takes where weight and activation are not zero, and where one of them is."""

    active_pJ: Positive
    resting_pJ: NotNegative
    covers: Covers
    obtained: Obtained


class Density(Sourced):
    """Share of the entries of an activation plane that are not zero."""

    ternary: Share
    bit: Share


class Units(Sourced):
    """Units, each of one product a cycle, whether it rests or not."""

    n_units: Count


class EventDriven(Comparator):
    """Products that are gated by zeros of weights and of activations: they save energy, not time."""

    kind: Literal["event-driven"]
    clock: Clock
    units: Units
    density: Density
    events: Events


# Peaks


class PeakRate(Sourced):
    """Products at full rate."""

    macs_per_ns: Positive


class Bandwidth(Sourced):
    """What comes from main memory."""

    bits_per_ns: Positive
    operand_bits: Count
    """Of a weight or an activation there."""

    batch: Count = 1
    """Images that share one reading of the weights."""


class Launch(Sourced):
    """What every layer takes beside its work."""

    latency_ns: NotNegative


class Roofline(Comparator):
    """Peak rate and memory bandwidth, whichever holds a layer up."""

    kind: Literal["roofline"]
    peak: PeakRate
    utilization: Utilization
    memory: Bandwidth
    launch: Launch
    power: Power


class ThroughputRow(Comparator):
    """A row of a table: a peak rate and an energy a product, and how much of the peak is assumed to be reached."""

    kind: Literal["throughput"]
    peak: PeakRate
    utilization: Utilization
    energy: EnergyPerMac
