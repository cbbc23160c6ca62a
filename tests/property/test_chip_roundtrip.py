"""Laws of chip files and costs that hold for every chip."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from imcsim.arch.load import dump_chip, load_chip
from imcsim.costs.peaks import peaks
from imcsim.costs.price import price

not_negative = st.floats(0, 1e12, allow_nan=False, allow_infinity=False)
positive = st.floats(1e-9, 1e12, allow_nan=False, allow_infinity=False)
bases = st.sampled_from(["published", "recalled", "derived", "fitted", "assumed"])
words = st.text(st.characters(exclude_categories=["Cs", "Cn"]), min_size=1, max_size=40)


@st.composite
def overrides(draw):
    """Draw values for a chip's structure, times, energies and texts that hold together."""
    n_pcus, columns_per_pcu = draw(st.integers(1, 64)), draw(st.integers(1, 32))
    rows_per_access, n_blocks = draw(st.integers(1, 64)), draw(st.integers(1, 32))
    structure = {
        "n_tiles": draw(st.integers(1, 100)),
        "double_buffered": draw(st.booleans()),
        "tile.n_pcus": n_pcus,
        "tile.n_columns": n_pcus * columns_per_pcu,
        "tile.rows_per_access": rows_per_access,
        "tile.n_rows": rows_per_access * n_blocks,
        "tile.count_max": draw(st.integers(1, 64)),
    }
    values = {
        "tile.access.interval_ns": positive,
        "tile.access.pcus.energy_pJ": not_negative,
        "tile.conversion.adc_fraction": st.floats(0, 1),
        "tile.array.area_um2": not_negative,
        "psum_buffer.capacity_bits": st.integers(1, 1 << 30),
        "main_memory.bits_per_ns": positive,
        "main_memory.n_channels": st.integers(1, 64),
        "activation_buffer.read.n_ports": st.integers(1, 8),
        "tile.block_select.latency_ns": not_negative,
        "network.carries": st.sampled_from([["weights"], ["weights", "inputs", "outputs"], ["psums", "weights"]]),
        "network.basis": bases,
    }
    chosen = draw(st.sets(st.sampled_from(sorted(values))))
    return structure | {key: draw(values[key]) for key in sorted(chosen)}


@settings(max_examples=20, deadline=None)
@given(overrides(), words)
@example({}, "\x85")  # line breaks that are not "\n"
@example({}, "a\u2028b")
def test_a_chip_saved_and_loaded_is_equal(chosen, description):
    chip = load_chip("tim-dnn", chosen).model_copy(update={"description": description})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "chip.yaml"
        path.write_bytes(dump_chip(chip).encode())
        assert load_chip(path) == chip


@settings(max_examples=20, deadline=None)
@given(overrides())
def test_costs_are_never_negative_and_shares_add_up(chosen):
    chip = load_chip("tim-dnn", chosen)
    costs = price(chip)
    assert all(line.energy_pJ >= 0 for line in costs.costs)
    assert all(timing.interval_ns > 0 and timing.latency_ns >= 0 for timing in costs.timings.values())
    assert all(not peak.shares or abs(sum(peak.shares.values()) - 1) < 1e-9 for peak in peaks(chip, costs))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 64), st.integers(1, 64))
def test_area_and_peak_grow_with_the_tiles(a, b):
    few, many = (load_chip("tim-dnn", {"n_tiles": n}) for n in sorted((a, b)))
    assert price(few).area_um2 <= price(many).area_um2
    assert peaks(few, price(few))[0].value <= peaks(many, price(many))[0].value
