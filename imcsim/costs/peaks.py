"""What a chip reaches at full rate, by its own numbers, beside what its paper prints.

The operating point. Every tile starts an access as soon as array and PCUs allow, on columns that use all rows:

* each access reads its `rows_per_access` inputs, 2 bits each, from the activation buffer;
* each tile finishes a psum for every column after `n_blocks` accesses; each psum is added once in the reduce unit and
  written once to the psum buffer, `adder_bits` bits;
* ReLU lanes and quantization units take psums as fast as they come or as fast as they can, whichever is slower; the
  codes, 2 bits each, go back to the activation buffer; vPE and SPE rest;
* what the network carries beside weights goes over it, as fast as it can;
* the scheduler issues one instruction per tile and vector, or as many as it can;
* everything leaks; no weights are written, links between banks and chips rest, and so does main memory: its power at
  full bandwidth is a line of its own.

Nothing here is fitted to the paper's power or area: the differences are printed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from imcsim.arch.spec import BASES, Basis, Chip
from imcsim.arrays import greatest, least
from imcsim.costs.price import selects_by
from imcsim.costs.table import CostTable, Timing, total
from imcsim.units import UM2_PER_MM2

BITS_PER_DIGIT = 2
"""A ternary digit in a buffer, and a code of the quantization units."""

Shares = dict[Basis, float]


@dataclass(frozen=True)
class Peak:
    """One figure of a chip at full rate."""

    name: str
    value: float
    unit: str

    formula: str
    """How the value follows, in words."""

    shares: Shares = field(default_factory=dict)
    """Share of the value's energy, power or area that rests on each basis."""

    printed: float | None = None
    """What the chip's paper prints; None where it prints nothing that we know of."""

    printed_basis: Basis | None = None
    """How well the printed figure itself is known."""

    @property
    def difference(self) -> float | None:
        """Our value relative to the printed one: 0.02 is 2 % more."""
        return None if self.printed is None else self.value / self.printed - 1


def peaks(chip: Chip, costs: CostTable) -> list[Peak]:
    """Return the figures of *chip* at full rate, each beside what its paper prints."""
    tile = chip.tile
    n_operations = 2 * tile.rows_per_access * tile.n_columns
    interval_ns = access_interval_ns(chip, costs)
    tile_TOPS = n_operations / interval_ns / 1000
    peak_TOPS = chip.all_tiles * tile_TOPS
    rates = full_rates(chip, costs)
    power, power_shares = power_mW(costs, rates)
    access_pJ, access_shares = power_mW(costs, access_actions(chip), leaking=())
    tile_parts = ("tile.array", f"tile.{chip.converter}")
    tile_rates = {action: rates[action] for action in access_actions(chip)}
    tiles_mW, tiles_shares = power_mW(costs, tile_rates, leaking=tile_parts)
    tiles_um2 = total(line.area_um2 for line in costs.areas if line.component in tile_parts)
    tile_mm2 = tiles_um2 / chip.all_tiles / UM2_PER_MM2
    tile_area_shares = shares((line.basis, line.area_um2) for line in costs.areas if line.component in tile_parts)
    area_shares = shares((line.basis, line.area_um2) for line in costs.areas)
    memory_rates = {"main_memory.read": chip.n_chips / costs.timings["main_memory.read"].interval_ns}
    memory_mW, memory_shares = power_mW(costs, memory_rates, leaking=())
    of_time: Shares = {tile.access.basis: 1.0}
    found = [
        Peak("peak_TOPS", peak_TOPS, "TOPS", "all tiles x 2 x rows_per_access x n_columns / access interval", of_time),
        Peak("power_mW", power, "mW", "all actions at full rate, and leakage; without main memory", power_shares),
        Peak("TOPS_per_W", peak_TOPS / power * 1000, "TOPS/W", "peak_TOPS / power_mW", power_shares),
        Peak("area_um2", costs.area_um2, "um2", "all components", area_shares),
        Peak(
            "TOPS_per_mm2",
            peak_TOPS / costs.area_um2 * UM2_PER_MM2,
            "TOPS/mm2",
            "peak_TOPS / area_um2",
            area_shares,
        ),
        Peak("tile_access_pJ", access_pJ, "pJ", "one access of all columns, all of them converted", access_shares),
        Peak(
            "tile_dynamic_TOPS_per_W",
            n_operations / access_pJ,
            "TOPS/W",
            "operations of an access / tile_access_pJ",
            access_shares,
        ),
        Peak(
            "tile_TOPS_per_W",
            peak_TOPS / tiles_mW * 1000,
            "TOPS/W",
            "as tile_dynamic_TOPS_per_W, with the tiles' leakage",
            tiles_shares,
        ),
        Peak("tile_TOPS_per_mm2", tile_TOPS / tile_mm2, "TOPS/mm2", "one tile's TOPS / its area", tile_area_shares),
        Peak("leakage_mW", costs.leakage_mW, "mW", "all components", leakage_shares(costs)),
        Peak(
            "main_memory_power_mW",
            memory_mW,
            "mW",
            "reading at full bandwidth; in no other line",
            memory_shares,
        ),
        Peak("weight_capacity", chip.all_tiles * tile.n_rows * tile.n_columns, "ternary weights", "cells of all tiles"),
    ]
    return [beside_paper(peak, chip) for peak in found]


def access_interval_ns(chip: Chip, costs: CostTable) -> float:
    """Return the time between two accesses of a tile: the decoder's, the array's, or the rounds of the PCUs.

    An array for variants.
    """
    return greatest(*(timing.interval_ns for timing in access_timings(chip, costs)))


def access_timings(chip: Chip, costs: CostTable) -> list[Timing]:
    """Return the timings of the stages of an access, one after the other: decoder, where it is one, array, PCUs."""
    stages = ("tile.select", "tile.access", chip.conversion)
    return [costs.timings[stage] for stage in stages if stage in costs.timings]


def access_actions(chip: Chip) -> dict[str, float]:
    """Return the actions of one full-width access."""
    n = chip.tile.n_columns
    return {selects_by(chip): 1, "tile.access": 1, "tile.column_read": n, chip.conversion: n}


def full_rates(chip: Chip, costs: CostTable) -> dict[str, float]:
    """Return how many of each action happen in a nanosecond at the operating point of this module, in all banks."""
    return {action: chip.all_banks * rate for action, rate in rates_of_bank(chip, costs).items()}


def rates_of_bank(chip: Chip, costs: CostTable) -> dict[str, float]:
    """Return the same of one bank."""
    tile = chip.tile
    accesses = chip.n_tiles / access_interval_ns(chip, costs)
    vectors = accesses / tile.n_blocks
    psums = vectors * tile.n_columns
    codes = at_most("sfu.qu", psums, costs)
    inputs = accesses * tile.rows_per_access * BITS_PER_DIGIT
    sent = {"inputs": inputs, "psums": psums * chip.reduce_unit.adder_bits, "outputs": codes * BITS_PER_DIGIT}
    on_network = sum(bits for name, bits in sent.items() if name in chip.network.carries)
    return {
        **{action: n * accesses for action, n in access_actions(chip).items()},
        "activation_buffer.read": at_most("activation_buffer.read", inputs, costs),
        "activation_buffer.write": at_most("activation_buffer.write", codes * BITS_PER_DIGIT, costs),
        "psum_buffer.write": at_most("psum_buffer.write", psums * chip.reduce_unit.adder_bits, costs),
        "reduce_unit.add": at_most("reduce_unit.add", psums, costs),
        "sfu.relu": at_most("sfu.relu", psums, costs),
        "sfu.qu": codes,
        "scheduler.issue": at_most("scheduler.issue", vectors, costs),
        **({"network.transfer": at_most("network.transfer", on_network, costs)} if on_network else {}),
    }


def at_most(action: str, wanted: float, costs: CostTable) -> float:
    """Return the rate that is *wanted*, or what the unit can do, all ports together; an array for variants."""
    return least(wanted, costs.servers.get(action, 1) / costs.timings[action].interval_ns)


def power_mW(costs: CostTable, rates: dict[str, float], leaking: tuple[str, ...] | None = None) -> tuple[float, Shares]:
    """Return the power of actions at *rates* per ns, and what share of it rests on each basis.

    *leaking* are the components that leak; None for all of them. With rates that are counts the result is an energy.
    """
    parts = [(line.basis, rate * line.energy_pJ) for action, rate in rates.items() for line in costs.by_action[action]]
    parts += [(line.basis, line.leakage_mW) for line in costs.areas if leaking is None or line.component in leaking]
    return total(value for _, value in parts), shares(parts)


def leakage_shares(costs: CostTable) -> Shares:
    """Return what share of the leakage rests on each basis."""
    return shares((line.basis, line.leakage_mW) for line in costs.areas)


def shares(parts: Iterable[tuple[Basis, float]]) -> Shares:
    """Return each basis' share of the sum of *parts*; nothing where the sum is nothing.

    >>> shares([("published", 3.0), ("assumed", 1.0)])
    {'published': 0.75, 'assumed': 0.25}
    """
    sums = dict.fromkeys(BASES, 0.0)
    for basis, value in parts:
        sums[basis] += value
    whole = total(sums.values())
    return {basis: part / whole for basis, part in sums.items() if part} if whole else {}


def beside_paper(peak: Peak, chip: Chip) -> Peak:
    """Return *peak* with what the chip's paper prints under the same name; of many banks only what is a tile's."""
    figure = chip.figures.get(peak.name)
    if figure is None or (chip.all_banks > 1 and not peak.name.startswith("tile_")):
        return peak
    return replace(peak, printed=figure.value, printed_basis=figure.basis)
