"""From a chip to what its actions cost.

Actions and the unit that one of them counts:

| action | one of them |
|---|---|
| `tile.access` | one block enabled: wordlines and decoders |
| `tile.select` | one block selected, where that is a stage of its own: decoders, which the access is then without |
| `tile.column_read` | one used column in one access: its bitlines |
| `tile.convert` | one used column in one access: both its counts, through a PCU |
| `tile.convert_one` | the same of one count alone |
| `tile.multiply_add` | one used column in one access of a near-memory tile: its word, through an NMC unit |
| `tile.write_row` | one row of weights, all columns |
| `activation_buffer.read`, `.write`, `psum_buffer.read`, `.write` | one bit |
| `reduce_unit.add` | one addition |
| `sfu.relu`, `sfu.vpe`, `sfu.spe`, `sfu.qu` | one element |
| `network.transfer`, `main_memory.read`, `main_memory.write` | one bit |
| `bank_link.transfer`, `chip_link.transfer` | one bit over one link |
| `scheduler.issue` | one instruction |

A timing is that of a bank's whole unit, so its interval is that of a lane divided by the lanes; tiles are timed one
by one. Conversions are timed for all columns of an access, the rounds of the PCUs, or NMC units, one after the other.
"""

from typing import Any

import numpy as np

from imcsim.arch.spec import Access, Basis, Chip, Link, Network, Port, Silicon, Sourced
from imcsim.arrays import greatest
from imcsim.costs import digital, dram, operating, sram
from imcsim.costs import tile as tile_costs
from imcsim.costs.table import ComponentArea, Cost, CostTable, Timing

STRENGTH: tuple[Basis, ...] = ("published", "derived", "fitted", "recalled", "assumed")
"""From the surest to the least sure; a number is as sure as the least sure that it rests on."""


def price(chip: Chip) -> CostTable:
    """Return what every action of *chip* costs and how long it takes, and the area and leakage of every component."""
    return CostTable(
        chip=chip.name,
        costs=(*tile_lines(chip), *memory_lines(chip), *digital_lines(chip)),
        timings={**tile_timings(chip), **memory_timings(chip), **digital_timings(chip)},
        areas=(*tile_areas(chip), *other_areas(chip)),
        servers=servers(chip),
    )


def least_sure(*bases: Basis) -> Basis:
    """Return the least sure of *bases*.

    >>> least_sure("derived", "recalled")
    'recalled'
    """
    return max(bases, key=STRENGTH.index)


# Tile


def tile_lines(chip: Chip) -> list[Cost]:
    """Return what accesses, conversions and row writes cost."""
    tile, access, at = chip.tile, chip.tile.access, chip.tile.access.characterized_at
    n_rows = tile.n_rows / at.n_rows
    n_columns = tile.n_columns / at.n_columns
    rows_per_access = tile.rows_per_access / at.rows_per_access
    count_max = tile.count_max / at.count_max
    adc_fraction, relative = tile.conversion.adc_fraction, operating.relative(chip)
    wordlines = tile_costs.wordline_energy(access.wordlines.energy_pJ * relative.wordlines, n_columns, rows_per_access)
    bitlines = tile_costs.column_read_energy(
        access.bitlines.energy_pJ * relative.bitlines, at.n_columns, n_rows, rows_per_access
    )
    pcu = tile_costs.convert_energy(access.pcus.energy_pJ, at.n_columns, adc_fraction, count_max)
    write = tile_costs.write_row_energy(tile.write_row.energy_pJ * relative.write_row, n_columns, n_rows)
    column_pcu = line(
        chip.conversion,
        f"tile.{chip.converter}",
        pcu,
        access.pcus,
        "access.pcus.energy_pJ / characterized_at.n_columns x (1 - adc_fraction + adc_fraction x count_max "
        "relative to characterized_at)",
        scaled=(count_max,),
        by=tile.conversion,
    )
    one_count = line(
        "tile.convert_one",
        "tile.pcu",
        pcu * (1 - tile_costs.adc_share(adc_fraction, count_max) / 2),
        access.pcus,
        "tile.convert less one of its two ADCs: n is read alone",
        scaled=(count_max,),
        by=tile.conversion,
    )
    return [
        line(
            "tile.access",
            "tile.wordlines",
            wordlines,
            access.wordlines,
            "access.wordlines.energy_pJ x n_columns x rows_per_access, relative to characterized_at"
            + _followed(relative.wordlines, "circuit.discharge.precharge_V^2"),
            scaled=(n_columns, rows_per_access, relative.wordlines),
            by=_follows(access, relative.wordlines),
        ),
        line(
            selects_by(chip), "tile.decoders", access.decoders.energy_pJ, access.decoders, "access.decoders.energy_pJ"
        ),
        line(
            "tile.column_read",
            "tile.bitlines",
            bitlines,
            access.bitlines,
            "access.bitlines.energy_pJ / characterized_at.n_columns x n_rows x rows_per_access, relative to "
            "characterized_at" + _followed(relative.bitlines, "C V (V - V(n)) of the circuit"),
            scaled=(n_rows, rows_per_access, relative.bitlines),
            by=_follows(access, relative.bitlines),
        ),
        column_pcu,
        *([] if chip.is_near_memory else [one_count]),
        line(
            "tile.write_row",
            "tile.write",
            write,
            tile.write_row,
            "write_row.energy_pJ x n_columns x n_rows, relative to characterized_at"
            + _followed(relative.write_row, "circuit.bitline.capacitance_pF x circuit.discharge.precharge_V^2"),
            scaled=(n_columns, n_rows, relative.write_row),
            by=_follows(access, relative.write_row),
        ),
    ]


def _followed(ratio: Any, of_what: str) -> str:
    """Return what is added to a formula where the circuit stands at another operating point."""
    return "" if np.all(ratio == 1) else f", x {of_what}, relative to access.operating_point"


def _follows(access: Access, ratio: Any) -> Sourced | None:
    """Return what a number rests on where it follows the circuit."""
    return None if np.all(ratio == 1) else access.operating_point


def has_decoder_stage(chip: Chip) -> bool:
    """Whether a block is selected in a stage of its own; true where that takes time on any variant of *chip*."""
    return bool(np.any(np.asarray(chip.tile.block_select.latency_ns) > 0))


def selects_by(chip: Chip) -> str:
    """Return the action that spends the energy of the decoders."""
    return "tile.select" if has_decoder_stage(chip) else "tile.access"


def tile_timings(chip: Chip) -> dict[str, Timing]:
    """Return how long one tile takes for an access, for the conversions of an access, and for a row write."""
    tile, conversion = chip.tile, chip.tile.conversion
    rounds_ns = tile.columns_per_pcu * conversion.interval_ns
    select_ns, latency_ns = tile.block_select.latency_ns, operating.access_latency_ns(chip)
    return {
        **({"tile.select": Timing(select_ns, select_ns)} if has_decoder_stage(chip) else {}),
        # the sample-and-holds keep one access, so the next begins when this one has been sampled
        "tile.access": Timing(latency_ns, greatest(latency_ns, operating.access_interval_ns(chip))),
        chip.conversion: Timing(rounds_ns - conversion.interval_ns + conversion.latency_ns, rounds_ns),
        "tile.write_row": Timing(tile.write_row.latency_ns, tile.write_row.latency_ns),
    }


def tile_areas(chip: Chip) -> list[ComponentArea]:
    """Return area and leakage of the arrays and PCUs, or NMC units, of all tiles."""
    tile, at, n_tiles = chip.tile, chip.tile.access.characterized_at, chip.all_tiles
    n_rows, n_columns = tile.n_rows / at.n_rows, tile.n_columns / at.n_columns
    n_pcus, count_max = tile.n_pcus / at.n_pcus, tile.count_max / at.count_max
    cells = n_tiles * tile_costs.array_area(1.0, n_rows, n_columns)
    pcus = n_tiles * tile_costs.pcus_area(1.0, n_pcus, tile.conversion.adc_fraction, count_max)
    return [
        area("tile.array", n_tiles, cells, tile.array, scaled=(n_rows, n_columns)),
        area(
            f"tile.{chip.converter}",
            n_tiles * tile.n_pcus,
            pcus,
            tile.pcus,
            scaled=(n_pcus, count_max),
            by=tile.conversion,
        ),
    ]


# Memories and links


def memory_lines(chip: Chip) -> list[Cost]:
    """Return what a bit costs in the buffers, on the network and in main memory."""
    lines = []
    for name, buffer in (("activation_buffer", chip.activation_buffer), ("psum_buffer", chip.psum_buffer)):
        for direction, port in (("read", buffer.read), ("write", buffer.write)):
            energy = sram.access_energy(port.energy_pJ_per_bit, buffer.capacity_bits, buffer.characterized_at_bits)
            lines.append(
                line(
                    f"{name}.{direction}",
                    name,
                    energy,
                    port,
                    f"{direction}.energy_pJ_per_bit x (capacity_bits / characterized_at_bits)^0.5",
                    scaled=(buffer.capacity_bits / buffer.characterized_at_bits,),
                )
            )
    memory = chip.main_memory
    read, write = memory.read_energy, memory.write_energy
    return [
        *lines,
        line("network.transfer", "network", chip.network.energy_pJ_per_bit, chip.network, "energy_pJ_per_bit"),
        line("main_memory.read", "main_memory", read.energy_pJ_per_bit, read, "read_energy.energy_pJ_per_bit"),
        line("main_memory.write", "main_memory", write.energy_pJ_per_bit, write, "write_energy.energy_pJ_per_bit"),
        *(
            line(f"{name}.transfer", name, link.energy_pJ_per_bit, link, "energy_pJ_per_bit")
            for name, link, _ in links_of(chip)
        ),
    ]


def links_of(chip: Chip) -> list[tuple[str, Link, int]]:
    """Return the kinds of links in use: the component, what describes it, and how many there are of it."""
    found = []
    for name, link, n, times in (
        ("bank_link", chip.bank_link, chip.n_banks, chip.n_chips),
        ("chip_link", chip.chip_link, chip.n_chips, 1),
    ):
        if n > 1:
            assert link is not None, "the chip file was checked"
            found.append((name, link, times * link.n_links(n)))
    return found


def memory_timings(chip: Chip) -> dict[str, Timing]:
    """Return how long a bit takes in the buffers, on the network and in main memory."""
    memory = dram.per_bit(chip.main_memory.latency_ns, chip.main_memory.bits_per_ns)
    ports: dict[str, Port | Network | Link] = {
        "activation_buffer.read": chip.activation_buffer.read,
        "activation_buffer.write": chip.activation_buffer.write,
        "psum_buffer.read": chip.psum_buffer.read,
        "psum_buffer.write": chip.psum_buffer.write,
        "network.transfer": chip.network,
        **{f"{name}.transfer": link for name, link, _ in links_of(chip)},
    }
    return {
        **{action: dram.per_bit(port.latency_ns, port.bits_per_ns) for action, port in ports.items()},
        "main_memory.read": memory,
        "main_memory.write": memory,
    }


def servers(chip: Chip) -> dict[str, int]:
    """Return how many tasks each unit beside the tiles serves at one time, where there may be several."""
    return {
        "activation_buffer.read": chip.activation_buffer.read.n_ports,
        "activation_buffer.write": chip.activation_buffer.write.n_ports,
        "psum_buffer.read": chip.psum_buffer.read.n_ports,
        "psum_buffer.write": chip.psum_buffer.write.n_ports,
        "main_memory": chip.main_memory.n_channels,
    }


# Digital units


def digital_lines(chip: Chip) -> list[Cost]:
    """Return what additions, elements of the SFU and instructions cost."""
    unit = chip.reduce_unit
    add = digital.per_bits(unit.add.energy_pJ, unit.adder_bits, unit.characterized_at_bits)
    return [
        line(
            "reduce_unit.add",
            "reduce_unit",
            add,
            unit.add,
            "add.energy_pJ x adder_bits / characterized_at_bits",
            scaled=(unit.adder_bits / unit.characterized_at_bits,),
        ),
        *(
            line(f"sfu.{name}", f"sfu.{name}", lanes.operation.energy_pJ, lanes.operation, "operation.energy_pJ")
            for name, lanes in chip.sfu
        ),
        line("scheduler.issue", "scheduler", chip.scheduler.issue.energy_pJ, chip.scheduler.issue, "issue.energy_pJ"),
    ]


def digital_timings(chip: Chip) -> dict[str, Timing]:
    """Return how long an addition, an element and an instruction take, all lanes working."""
    add, issue = chip.reduce_unit.add, chip.scheduler.issue
    return {
        "reduce_unit.add": Timing(add.latency_ns, add.interval_ns / chip.reduce_unit.n_adders),
        **{
            f"sfu.{name}": Timing(lanes.operation.latency_ns, lanes.operation.interval_ns / lanes.n_lanes)
            for name, lanes in chip.sfu
        },
        "scheduler.issue": Timing(issue.latency_ns, issue.interval_ns),
    }


def other_areas(chip: Chip) -> list[ComponentArea]:
    """Return area and leakage of what stands beside the tiles: in each bank, in each chip, and between them."""
    unit, n_banks = chip.reduce_unit, chip.all_banks
    bits = unit.adder_bits / unit.characterized_at_bits
    n_adders = n_banks * unit.n_adders
    return [
        *(
            area(
                name,
                n_banks,
                n_banks * sram.per_capacity(1.0, buffer.capacity_bits, buffer.characterized_at_bits),
                buffer.silicon,
                scaled=(buffer.capacity_bits / buffer.characterized_at_bits,),
            )
            for name, buffer in (("activation_buffer", chip.activation_buffer), ("psum_buffer", chip.psum_buffer))
        ),
        area("reduce_unit", n_adders, n_adders * digital.per_bits(1.0, bits, 1), unit.silicon, scaled=(bits,)),
        *(
            area(f"sfu.{name}", n_banks * lanes.n_lanes, n_banks * lanes.n_lanes * 1.0, lanes.silicon)
            for name, lanes in chip.sfu
        ),
        area("scheduler", n_banks, n_banks * 1.0, chip.scheduler.silicon),
        area("network", chip.n_chips, chip.n_chips * 1.0, chip.network.silicon),
        *(area(name, n, n * 1.0, link.silicon) for name, link, n in links_of(chip)),
    ]


# Lines of the table


def line(
    action: str,
    component: str,
    energy_pJ: float,
    record: Sourced,
    formula: str,
    *,
    scaled: tuple[float, ...] = (),
    by: Sourced | None = None,
) -> Cost:
    """Return a line of the table, with basis and source of *record*.

    Where a ratio of *scaled* is not 1 the number is derived by *formula*, and it rests on the record *by* too.
    """
    basis, source = scaled_basis(record, scaled, by)
    return Cost(action, component, energy_pJ, basis, source, formula, record.within_factor)


def area(
    component: str,
    n_instances: int,
    times: float,
    silicon: Silicon,
    *,
    scaled: tuple[float, ...] = (),
    by: Sourced | None = None,
) -> ComponentArea:
    """Return area and leakage of all instances: those of the record, *times* as many or as large."""
    basis, source = scaled_basis(silicon, scaled, by)
    return ComponentArea(
        component,
        n_instances,
        area_um2=silicon.area_um2 * times,
        leakage_mW=silicon.leakage_mW * times,
        basis=basis,
        source=source,
        within_factor=silicon.within_factor,
    )


def scaled_basis(record: Sourced, scaled: tuple[float, ...], by: Sourced | None) -> tuple[Basis, str]:
    """Return basis and source of a number that follows from *record*, scaled or not."""
    if all(np.all(ratio == 1) for ratio in scaled):
        return record.basis, record.source
    bases = [record.basis, "derived", *([by.basis] if by else [])]
    return least_sure(*bases), f"{record.source}; scaled by imcsim.costs from the measures that it holds for"
