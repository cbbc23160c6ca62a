"""A chip as frozen pydantic models: chip > bank > tile > block > cell, and what stands beside the tiles.

Keys carry their units. Every record that holds numbers of a real chip says where they come from (`source`) and how
well they are known (`basis`); `within_factor` states a range, as the factor that the true value lies within. A number
whose sources differ from its neighbours' lives in a record of its own.
"""

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Basis = Literal["published", "recalled", "derived", "fitted", "assumed"]
BASES: tuple[Basis, ...] = ("published", "recalled", "derived", "fitted", "assumed")

Traffic = Literal["weights", "inputs", "psums", "outputs"]

Count = Annotated[int, Field(ge=1, le=1 << 40)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Spec(BaseModel):
    """A record of a chip file: strict, frozen, and nothing in it that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Sourced(Spec):
    """A record whose numbers say where they come from."""

    basis: Basis
    """How well the numbers are known: read in the source, attributed to it, computed from it, fitted, or assumed."""

    source: Annotated[str, Field(min_length=1)]
    """Paper and table, or the arithmetic that gives the numbers."""

    within_factor: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] | None = None
    """The true values lie within this factor of the stated ones; None where no range is stated."""


class Energy(Sourced):
    """Energy of one part of an action."""

    energy_pJ: NotNegative


class Silicon(Sourced):
    """Area and leakage of one component."""

    area_um2: NotNegative
    leakage_mW: NotNegative = 0.0


class Operation(Sourced):
    """One operation of a digital unit, on each of its lanes."""

    latency_ns: NotNegative
    """From operands to result."""

    interval_ns: Positive
    """Time until the lane takes the next operation."""

    energy_pJ: NotNegative


class Geometry(Spec):
    """The tile for which energies and areas were characterized."""

    n_rows: Count
    n_columns: Count
    rows_per_access: Count
    count_max: Count
    n_pcus: Count


class ActivityLevel(Sourced):
    """What the bitlines discharge in the accesses that an energy was given for."""

    nonzero_products: Annotated[float, Field(gt=0, le=1)]
    """Share of the products of a block that are not zero."""


class OperatingPoint(Sourced):
    """Where the circuit of a tile stood when its energies and times were given."""

    precharge_V: Positive
    pulse_ns: Positive
    capacitance_pF: Positive
    """Of one bitline."""

    operating_K: Annotated[float, Field(ge=200, le=500)]


class Access(Sourced):
    """One access of a full-width block: drive the wordlines, discharge the bitlines, sample, convert.

    The four energies, and the areas of the tile, are those at the tile `characterized_at`; `imcsim.costs` scales them
    to the tile at hand, and what the array takes from its `operating_point` to that of the chip's circuit.
    """

    latency_ns: Positive
    """From wordline to sampled bitlines; the conversion comes after it."""

    interval_ns: Positive
    """Time until the array takes the next access; the sample-and-holds let the PCUs convert meanwhile."""

    characterized_at: Geometry
    pcus: Energy
    """All conversions, subtractions and accumulations of one access."""

    bitlines: Energy
    """Precharge and discharge of all columns, at `activity`."""

    activity: ActivityLevel | None = None
    """None where what the bitlines spend does not follow the products, as in a near-memory tile."""

    operating_point: OperatingPoint | None = None
    """Energies and times of the array follow the chip's circuit from here (`imcsim.costs.operating`); None where they
    stay as they are stated, whatever the circuit."""

    wordlines: Energy
    decoders: Energy
    """Column multiplexers, row and block decoders."""


class Conversion(Sourced):
    """One PCU: sample n and k of one column, convert, scale, subtract, accumulate.

    In a near-memory tile one NMC unit: take the word of one column, multiply it by the input, accumulate.
    """

    latency_ns: Positive
    """From sampled bitlines of one column to its psum."""

    interval_ns: Positive
    """Time until the PCU takes the next column."""

    adc_fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the PCU's energy and area that its two flash ADCs take; it grows with count_max."""


class BlockSelect(Sourced):
    """Decoding a block and driving its wordlines, apart from the access itself."""

    basis: Basis = "assumed"
    source: Annotated[str, Field(min_length=1)] = "nothing is stated: the access latency is taken to hold it"
    latency_ns: NotNegative = 0.0
    """Time of one selection, in a stage of its own: while the array is busy with one block, the next is selected.

    0: the access holds it, and there is no such stage. Its energy is that of `access.decoders`.
    """


class RowWrite(Sourced):
    """Writing one row of weights across all columns of a tile."""

    latency_ns: Positive
    energy_pJ: NotNegative


class Imperfections(Sourced):
    """What is wrong with a tile beside the misreads of its circuit; all of it off where nothing is stated.

    What is fixed in a chip (stuck cells, offsets, gains) is drawn once for every cell and every ADC of a chip instance;
    noise is drawn anew at every read. An ADC reads ``clip(floor(gain * count + offset + noise + 1/2), 0, count_max)``:
    halves are rounded up, as a comparator fires at its threshold.
    """

    basis: Basis = "assumed"
    source: Annotated[str, Field(min_length=1)] = "nothing is stated, so nothing is wrong"
    stuck_at_zero_probability: Probability = 0.0
    """Probability that a cell holds 0 whatever is written into it."""

    stuck_at_plus_probability: Probability = 0.0
    """Probability that a cell holds +1 whatever is written into it."""

    stuck_at_minus_probability: Probability = 0.0
    """Probability that a cell holds -1 whatever is written into it."""

    adc_offset_counts: NotNegative = 0.0
    """Standard deviation of the static offset of an ADC; the two of a PCU, for n and for k, vary independently."""

    adc_gain_fraction: NotNegative = 0.0
    """Standard deviation of the static gain of an ADC around 1, likewise."""

    read_noise_counts: NotNegative = 0.0
    """Standard deviation of the Gaussian noise on every read, before the ADC rounds."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        stuck = self.stuck_probabilities
        if sum(stuck) > 1 + 1e-12:
            raise ValueError(
                f"stuck_at_zero_probability: must be at most 1 together with plus and minus, got {sum(stuck):g}"
            )
        return self

    @property
    def stuck_probabilities(self) -> tuple[float, float, float]:
        """Probabilities that a cell is stuck at 0, +1, -1."""
        return self.stuck_at_zero_probability, self.stuck_at_plus_probability, self.stuck_at_minus_probability

    @property
    def has_deviating_adcs(self) -> bool:
        """Whether the ADCs of a chip differ from each other."""
        return self.adc_offset_counts > 0 or self.adc_gain_fraction > 0


class Resistive(Sourced):
    """Cells of two resistive devices, one for each bitline: +1 is (on, off), -1 is (off, on), 0 is (off, off).

    What a bitline carries is the sum of the conductances of its driven devices, in units of that of one that is
    on; an input of -1 swaps the two devices of its cells. The ADC rounds the sum of each block, nothing is corrected.
    """

    on_off_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """Conductance of a device that is on over that of one that is off; None where nothing flows in the latter."""

    spread: Literal["lognormal", "gaussian"] = "lognormal"
    """Distribution of the programmed conductances; its mean is the nominal one, and a gaussian ends at 0."""

    programming_fraction: NotNegative = 0.0
    """Standard deviation of what a device is programmed to, relative to nominal; of the logarithm for lognormal.

    Drawn once for each device of a chip instance: what is written into it later deviates likewise.
    """

    drift_exponent: NotNegative = 0.0
    """Mean nu of the drift: conductances fall with (elapsed_s / drift_reference_s) to the power of -nu."""

    drift_exponent_spread: NotNegative = 0.0
    """Standard deviation of nu from device to device; below 0 it is taken as 0."""

    drift_reference_s: Positive = 1.0
    """Time after programming at which the conductances are those that were programmed."""

    elapsed_s: Positive = 1.0
    """Time between programming and reading."""

    read_noise_fraction: NotNegative = 0.0
    """Standard deviation of the current of each device at each read, relative to its conductance."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.elapsed_s < self.drift_reference_s:
            raise ValueError(
                f"elapsed_s: must be at least drift_reference_s ({self.drift_reference_s:g}), got {self.elapsed_s:g}; "
                "the law of the drift holds from there on"
            )
        return self


class Tile(Sourced):
    """One crossbar array with its drivers, sample-and-holds, PCUs and control.

    A near-memory tile is an SRAM array that is read row by row. A row is its block, a ternary word its column, and
    near-memory compute (NMC) units stand where a crossbar has PCUs: keys that name PCUs mean them.
    """

    n_rows: Count
    n_columns: Count
    rows_per_access: Count
    """Rows of one block, enabled together."""

    count_max: Count
    """Largest n or k that the ADCs tell apart; what exceeds it reads as count_max."""

    n_pcus: Count

    serial: Literal["bit", "trit"] = "bit"
    """How activations of several bits are sent: one pass a bit, or one a balanced ternary digit, which are fewer."""

    sense: Literal["both", "n"] = "both"
    """What the PCUs read of dense binary layers: n and k, or n alone, as n + k is the number of rows."""

    skips_zero_blocks: bool = False
    """Whether an access is left out where none of the inputs that it would drive is +1 or -1.

    What is left out takes no energy and no time of array and PCUs, and reads as exactly 0. That somebody sees the zeros
    (an OR over the digits of a block, on their way from the activation buffer) is assumed to cost nothing and to be
    hidden behind the access before; the digits are fetched all the same.
    """

    misreads: Annotated[str, Field(min_length=1)] = "none"
    """How often a count is read one too low or too high: none; circuit, from the chip's own; or the path of a table."""

    imperfections: Imperfections = Imperfections()
    """Stuck cells, deviating ADCs and noise; off by default."""

    resistive: Resistive | None = None
    """Resistive devices in the place of whole-number cells; None where the cells count exactly."""

    access: Access
    block_select: BlockSelect = BlockSelect()
    conversion: Conversion
    write_row: RowWrite
    array: Silicon
    """The cells of one tile with their drivers, decoders and sample-and-holds, at `access.characterized_at`."""

    pcus: Silicon
    """All PCUs of one tile, at `access.characterized_at`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_rows % self.rows_per_access:
            raise ValueError(
                f"rows_per_access: must divide n_rows ({self.n_rows}) evenly, got {self.rows_per_access}; "
                "a tile is made of whole blocks"
            )
        if self.n_columns % self.n_pcus:
            raise ValueError(
                f"n_pcus: must divide n_columns ({self.n_columns}) evenly, got {self.n_pcus}; "
                "each PCU serves the same number of columns"
            )
        if self.resistive is not None and self.misreads != "none":
            raise ValueError(
                f"misreads: must be none where the tile is resistive, got {self.misreads}; "
                "a table says how whole counts are misread"
            )
        return self

    @property
    def has_faults(self) -> bool:
        """Whether one instance of the chip differs from the next: stuck cells, deviating ADCs, resistive devices."""
        wrong = self.imperfections
        return self.resistive is not None or wrong.has_deviating_adcs or any(wrong.stuck_probabilities)

    @property
    def draws_at_reads(self) -> bool:
        """Whether a read may come out otherwise the next time: misreads and noise."""
        noise = self.resistive.read_noise_fraction if self.resistive is not None else 0.0
        return self.misreads != "none" or self.imperfections.read_noise_counts > 0 or noise > 0

    @property
    def n_blocks(self) -> int:
        """Blocks of a tile."""
        return self.n_rows // self.rows_per_access

    @property
    def columns_per_pcu(self) -> int:
        """Columns that share one PCU: the conversions that one access waits for."""
        return self.n_columns // self.n_pcus


class Port(Sourced):
    """Reading or writing a memory."""

    latency_ns: NotNegative
    bits_per_ns: Positive
    """Of each port."""

    energy_pJ_per_bit: NotNegative
    n_ports: Count = 1
    """Tensors that are served at one time, each through a port of its own; area and leakage stay as they are stated."""


class Buffer(Sourced):
    """An on-chip SRAM; ports that read are apart from those that write."""

    capacity_bits: Count
    characterized_at_bits: Count
    """Capacity for which the energies, area and leakage hold; `imcsim.costs` scales them to the capacity at hand."""

    read: Port
    write: Port
    silicon: Silicon


class ReduceUnit(Sourced):
    """Adders that sum the psums of several tiles."""

    n_adders: Count
    adder_bits: Count
    characterized_at_bits: Count
    """Width of the adder for which energy, area and leakage hold; `imcsim.costs` scales them to the width at hand."""

    add: Operation
    silicon: Silicon
    """One adder."""


class Lanes(Sourced):
    """Equal lanes of the special function unit."""

    n_lanes: Count
    operation: Operation
    silicon: Silicon
    """One lane."""


class Sfu(Spec):
    """Special function unit."""

    relu: Lanes
    vpe: Lanes
    """Vector processing elements: element-wise arithmetic and pooling."""

    spe: Lanes
    """Special processing elements: exponentials, tanh, sigmoid."""

    qu: Lanes
    """Quantization units: comparisons that make codes."""


class Entry(Sourced):
    """One instruction, in main memory as in the scheduler's."""

    basis: Basis = "assumed"
    source: Annotated[str, Field(min_length=1)] = "nothing is stated: a word of 64 bits"
    width_bits: Count = 64


class ActivationProducts(Sourced):
    """Where the products of two activations are done, as attention has them."""

    basis: Basis = "assumed"
    source: Annotated[str, Field(min_length=1)] = "nothing is stated: the special function unit does what tiles do not"
    done_by: Literal["digital", "tiles"] = "digital"
    """digital: multiply-adds of the vPEs; tiles: the codes of the second one are written into rows of tiles for each
    sample, as weights are, and read with the codes of the first one as inputs."""


class Scheduler(Sourced):
    """Instruction memory and issue.

    A program of more instructions than there are entries is read from main memory in every inference
    (`imcsim.mapping.instructions`).
    """

    n_entries: Count
    entry: Entry = Entry()
    issue: Operation
    silicon: Silicon


class Network(Sourced):
    """On-chip network or bus that carries weights from main memory to the tiles, and more where the chip says so.

    What is not named in `carries` has wires of its own, whose time and energy are those of the units at their ends.
    """

    carries: Annotated[tuple[Traffic, ...], Field(strict=False)] = ("weights",)
    """weights; inputs: digits from the activation buffer to the tiles, each sent once to all tiles that share it;
    psums: sums from the tiles to the psum buffer, or, where one is the whole sum, to the special function unit;
    outputs: what the layer makes, on its way into the activation buffer."""

    latency_ns: NotNegative
    bits_per_ns: Positive
    energy_pJ_per_bit: NotNegative
    silicon: Silicon

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "weights" not in self.carries:
            raise ValueError(
                f"carries: must name weights, got {list(self.carries)}; they have no other way to the tiles"
            )
        if len(set(self.carries)) < len(self.carries):
            raise ValueError(f"carries: must name everything once, got {list(self.carries)}")
        return self


class Link(Sourced):
    """Links between equals, the banks of a chip or the chips: one for each direction between two neighbours."""

    topology: Literal["chain", "ring", "all-to-all"]
    """Who has a link to whom; what goes farther is handed on from neighbour to neighbour, the shorter way round."""

    latency_ns: NotNegative
    """From one end of a link to the other, with the handing on."""

    bits_per_ns: Positive
    """Of one link, in its one direction."""

    energy_pJ_per_bit: NotNegative
    """A bit over one link."""

    silicon: Silicon
    """One link in its one direction: what drives it and what receives."""

    def n_links(self, n: int) -> int:
        """Return how many links *n* equals have, each direction counted.

        >>> link = Link.model_construct(topology="ring")
        >>> [link.n_links(n) for n in (1, 2, 3)]
        [0, 2, 6]
        """
        if n < 2:
            return 0
        pairs = {"chain": n - 1, "ring": n if n > 2 else 1, "all-to-all": n * (n - 1) // 2}
        return 2 * pairs[self.topology]


class EnergyPerBit(Sourced):
    """Energy of moving one bit."""

    energy_pJ_per_bit: NotNegative


class Interleave(Sourced):
    """How addresses are spread over the channels of main memory."""

    basis: Basis = "assumed"
    source: Annotated[str, Field(min_length=1)] = "nothing is stated: pieces of 32 bytes"
    piece_bits: Count = 256
    """Bits that lie together in one channel."""


class MainMemory(Sourced):
    """Off-chip memory.

    Consecutive addresses lie in turn in all channels, a piece in each. A transfer takes as many channels as it has
    pieces: a long one takes all of them, short ones go on side by side.
    """

    latency_ns: NotNegative
    bits_per_ns: Positive
    """Of all channels together."""

    n_channels: Count = 1
    interleave: Interleave = Interleave()
    read_energy: EnergyPerBit
    write_energy: EnergyPerBit


class Technology(Sourced):
    """The process."""

    node_nm: Positive
    supply_V: Positive


class Discharge(Sourced):
    """What the margins between the states fix: the swing of a bitline, and the path that a cell pulls it down by.

    The path, the read access transistor in series with the transistor of the storage node, is one effective nMOS.
    """

    precharge_V: Positive
    """Bitlines are precharged to it; wordlines and storage nodes drive the gates with it."""

    current_mA: Positive
    """Saturation current of one cell at a gate overdrive of 1 V."""

    saturation_V: Positive
    """Bitline voltage above which that current is saturated, at a gate overdrive of 1 V."""


class AccessPath(Sourced):
    """Alpha-power law of the effective nMOS (Sakurai and Newton, JSSC 25(2), 1990)."""

    threshold_V: Positive
    alpha: Annotated[float, Field(ge=1, le=2)]
    """Power of the overdrive: 2 for a long channel, towards 1 as the velocity of the carriers saturates."""

    modulation_per_V: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Channel length modulation: relative growth of the saturated current per volt above saturation."""


class Bitline(Sourced):
    """One bitline of a column."""

    capacitance_pF: Positive
    pulse_ns: Positive
    """How long the wordlines are on."""

    off_current_mA: NotNegative = 0.0
    """Leakage of each cell that does not discharge the bitline, at `precharge_V`; proportional to the voltage below."""


class Temperature(Sourced):
    """The temperature, and how threshold and mobility follow it."""

    operating_K: Annotated[float, Field(ge=200, le=500)]
    nominal_K: Annotated[float, Field(ge=200, le=500)]
    """The temperature that the other numbers hold at."""

    threshold_V_per_K: NotNegative
    """By how much the threshold falls per kelvin."""

    mobility_exponent: Annotated[float, Field(ge=0, le=3)]
    """The current goes with (T / nominal) to minus this power."""


class Variation(Sourced):
    """Variation of the process."""

    threshold_fraction: Annotated[float, Field(ge=0, le=0.5)]
    """Standard deviation of a cell's threshold, as a fraction of its mean; cells vary independently."""


class Comparator(Sourced):
    """The comparators of the flash ADC, their references midway between neighbouring states."""

    offset_V: NotNegative
    """Standard deviation of the input offset of each comparator."""


class Occupancy(Sourced):
    """How often a bitline holds each count when it is read."""

    reads: Annotated[tuple[NotNegative, ...], Field(min_length=2, strict=False)]
    """Reads, or shares of them, by count, from 0; of n and of k together."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not sum(self.reads) > 0:
            raise ValueError("reads: must have a count that occurs, got none")
        return self


class Circuit(Spec):
    """A bitline, the cells that discharge it and the comparators that read it."""

    discharge: Discharge
    path: AccessPath
    bitline: Bitline
    temperature: Temperature
    variation: Variation
    comparator: Comparator
    occupancy: Occupancy | None = None
    """Weighs the misreads of the counts to one probability; None where none was gathered."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        overdrive_V = self.discharge.precharge_V - self.path.threshold_V
        if overdrive_V <= 0:
            raise ValueError(
                f"path.threshold_V: must be less than discharge.precharge_V ({self.discharge.precharge_V:g}), "
                f"got {self.path.threshold_V:g}; the cells would never be on"
            )
        knee_V = self.discharge.saturation_V * overdrive_V ** (self.path.alpha / 2)
        if self.path.modulation_per_V * knee_V > 0.8:
            raise ValueError(
                f"path.modulation_per_V: must be at most 0.8 / {knee_V:.3g} V, the bitline voltage at which the "
                f"current saturates, got {self.path.modulation_per_V:g}"
            )
        return self


class Figure(Sourced):
    """A figure that the chip's paper prints, to hold ours against; never used in a computation."""

    value: float
    unit: str


class Machine(Spec):
    """What a chip file describes, whatever its kind; `imcsim.arch.kinds` lists the kinds."""

    taken_by: ClassVar[str]
    """The commands that take it, for messages."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    kind: str
    description: str


class Chip(Machine):
    """What networks are placed on: everything on one die, with its link to main memory; or several such dies.

    Tiles, buffers, reduce unit, SFU and scheduler are those of one bank; a chip has `n_banks` of them, and one network
    and one main memory, which all its banks share. `n_chips` such chips are one machine: areas, leakage, peaks and
    energies are those of all of them.
    """

    taken_by = "imcsim run"

    kind: Literal["ternary-in-memory", "near-memory"]
    """What its tiles do: count the products of a block on their bitlines, or read row by row and compute beside."""

    technology: Technology
    n_tiles: Count
    """Tiles of one bank."""

    n_banks: Annotated[int, Field(ge=1, le=4096)] = 1
    """Banks of one chip, joined by `bank_link`."""

    n_chips: Annotated[int, Field(ge=1, le=4096)] = 1
    """Chips that work together, joined by `chip_link`, which ends at bank 0 of each."""

    double_buffered: bool
    """Whether weights of the next round are written into idle tiles while the current round computes."""

    tile: Tile
    activation_products: ActivationProducts = ActivationProducts()
    activation_buffer: Buffer
    psum_buffer: Buffer
    reduce_unit: ReduceUnit
    sfu: Sfu
    scheduler: Scheduler
    network: Network
    main_memory: MainMemory
    bank_link: Link | None = None
    """Between the banks of a chip; None where none is described."""

    chip_link: Link | None = None
    """Between chips; None where none is described."""

    circuit: Circuit | None = None
    """The bitline of a tile; None where none is described."""

    figures: dict[str, Figure] = {}
    """What the paper prints of a whole chip of one bank, by name: peak_TOPS, power_mW, area_um2 ..."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, what, link in (("n_banks", "bank_link", self.bank_link), ("n_chips", "chip_link", self.chip_link)):
            if getattr(self, key) > 1 and link is None:
                raise ValueError(f"{key}: must be 1 without {what}, got {getattr(self, key)}; describe {what}")
        _check_pulse(self)
        if self.is_near_memory:
            _check_near_memory(self)
        elif self.tile.access.activity is None:
            raise ValueError(
                f"tile.access.activity: must be given for a chip of kind {self.kind}, got none; what its bitlines "
                "discharge follows the products"
            )
        return self

    @property
    def all_banks(self) -> int:
        """Banks of all chips."""
        return self.n_banks * self.n_chips

    @property
    def all_tiles(self) -> int:
        """Tiles of all banks of all chips."""
        return self.n_tiles * self.all_banks

    @property
    def is_near_memory(self) -> bool:
        """Whether its tiles are read row by row, and computed beside: digitally, and so exactly."""
        return self.kind == "near-memory"

    @property
    def converter(self) -> Literal["pcu", "nmc"]:
        """What serves the columns of its tiles: PCUs, or near-memory compute units."""
        return "nmc" if self.is_near_memory else "pcu"

    @property
    def conversion(self) -> Literal["tile.convert", "tile.multiply_add"]:
        """The action that these are timed by: of one column, n and k read, or its word multiplied and added."""
        return "tile.multiply_add" if self.is_near_memory else "tile.convert"


def _check_pulse(chip: Chip) -> None:
    """Refuse a pulse so short that an access would take no time: it is a part of the stated latency and interval."""
    access = chip.tile.access
    if chip.circuit is None or access.operating_point is None:
        return
    pulse_ns, stated_ns = chip.circuit.bitline.pulse_ns, access.operating_point.pulse_ns
    least_ns = stated_ns - min(access.latency_ns, access.interval_ns)
    if pulse_ns <= least_ns:
        raise ValueError(
            f"circuit.bitline.pulse_ns: must be greater than {least_ns:g}, which leaves an access no time (its latency "
            f"holds a pulse of {stated_ns:g}), got {pulse_ns:g}"
        )


def _check_near_memory(chip: Chip) -> None:
    """Refuse what a near-memory chip does not have: blocks of several rows, ADCs, bitlines that count."""
    tile, wrong = chip.tile, chip.tile.imperfections
    reads = "a near-memory tile reads one row at a time"
    exact = "a near-memory tile has no ADCs: it computes digitally, and so exactly"
    for key, found, only, why in (
        ("tile.rows_per_access", tile.rows_per_access, 1, reads),
        ("tile.access.characterized_at.rows_per_access", tile.access.characterized_at.rows_per_access, 1, reads),
        ("tile.count_max", tile.count_max, 1, exact),
        ("tile.access.characterized_at.count_max", tile.access.characterized_at.count_max, 1, exact),
        ("tile.conversion.adc_fraction", tile.conversion.adc_fraction, 0, exact),
        ("tile.sense", tile.sense, "both", exact),
        ("tile.misreads", tile.misreads, "none", exact),
        ("tile.imperfections.adc_offset_counts", wrong.adc_offset_counts, 0, exact),
        ("tile.imperfections.adc_gain_fraction", wrong.adc_gain_fraction, 0, exact),
        ("tile.imperfections.read_noise_counts", wrong.read_noise_counts, 0, exact),
    ):
        if found != only:
            raise ValueError(f"{key}: must be {only} in a near-memory chip, got {found}; {why}")
    for key, record, why in (
        ("tile.resistive", tile.resistive, "its cells hold bits"),
        ("tile.access.activity", tile.access.activity, "every column of a row discharges, whatever it holds"),
        ("circuit", chip.circuit, "it describes a bitline that counts"),
    ):
        if record is not None:
            raise ValueError(f"{key}: must not be given for a near-memory chip, got a mapping; {why}")


def kinds_of(model: type[Machine]) -> tuple[str, ...]:
    """Return the kinds that become a *model*.

    >>> "ternary-in-memory" in kinds_of(Chip)
    True
    """
    return get_args(model.model_fields["kind"].annotation)
