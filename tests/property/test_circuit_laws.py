"""What holds for every bitline and every error table."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from imcsim.arch.spec import Circuit
from imcsim.circuit.bitline import bitline_energy, discharged, margins, states
from imcsim.circuit.calibrate import tim_dnn
from imcsim.circuit.misreads import ErrorTable
from imcsim.circuit.sensing import sense

TIM_DNN = tim_dnn()


@st.composite
def circuits(draw):
    """Bitlines of any strength, some with leakage and channel length modulation."""
    tree = TIM_DNN.model_dump()
    tree["discharge"] |= {
        "precharge_V": draw(st.floats(0.7, 1.5)),
        "current_mA": draw(st.floats(0.0005, 0.05)),
        "saturation_V": draw(st.floats(0.1, 2.0)),
    }
    tree["path"] |= {
        "threshold_V": draw(st.floats(0.2, 0.6)),
        "alpha": draw(st.floats(1.0, 2.0)),
        "modulation_per_V": draw(st.sampled_from([0.0, 0.1, 0.3])),
    }
    tree["temperature"]["operating_K"] = draw(st.floats(250, 400))
    return Circuit.model_validate(tree)


@settings(max_examples=25)
@given(circuits())
def test_every_further_cell_lowers_the_voltage_by_less(circuit):
    voltages = states(circuit)
    assert voltages[0] == circuit.discharge.precharge_V
    assert ((voltages >= 0) & (voltages <= circuit.discharge.precharge_V)).all()
    steps = margins(voltages)
    assert ((steps > 0) | (voltages[1:] < 1e-300)).all()
    assert (np.diff(steps) <= 1e-9).all()


@settings(max_examples=25)
@given(circuits())
def test_energy_grows_with_the_count(circuit):
    assert (np.diff(bitline_energy(circuit, states(circuit))) >= 0).all()


@settings(max_examples=25)
@given(circuits(), st.floats(0.1, 3), st.floats(0.1, 3))
def test_cells_for_a_time_do_what_one_does_for_as_many_times(circuit, first_ns, second_ns):
    n = 6
    whole = states(circuit, n, pulse_ns=first_ns)[n]
    alone = states(circuit, 1, pulse_ns=n * first_ns)[1]
    assert abs(whole - alone) < 1e-9
    assert states(circuit, n, pulse_ns=first_ns + second_ns)[n] <= whole


@settings(max_examples=25)
@given(circuits(), st.integers(0, 2**32 - 1))
def test_a_stronger_cell_lowers_the_voltage(circuit, seed):
    rng = np.random.default_rng(seed)
    thresholds = circuit.path.threshold_V * (1 + 0.05 * rng.standard_normal((3, 5)))
    stronger = thresholds.copy()
    stronger[:, 2] -= 0.02
    assert (discharged(circuit, stronger) <= discharged(circuit, thresholds) + 1e-12).all()


@settings(max_examples=6)
@given(circuits(), st.sampled_from([0.0, 0.01]), st.integers(0, 1000))
def test_rows_of_every_estimate_add_up_to_one(circuit, offset_V, seed):
    circuit = circuit.model_copy(update={"comparator": circuit.comparator.model_copy(update={"offset_V": offset_V})})
    found = sense(circuit, n_cells=5, n_samples=200, n_weighted=200, seed=seed)
    for table in (found.counted, found.fitted, found.weighted):
        assert np.allclose(table.probabilities.sum(axis=1), 1)
        assert ((table.probabilities >= -1e-12) & (table.probabilities <= 1)).all()
        assert table.lower[0] == 0
        assert table.higher[-1] == 0


@given(st.lists(st.floats(0, 0.5), min_size=2, max_size=12), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_no_draw_leaves_the_counts_of_a_clipped_table(misreads, count_max, seed):
    misreads += [0.1] * (count_max + 1 - len(misreads))
    table = ErrorTable(lower=[0.0, *misreads[1:]], higher=misreads).upto(count_max)
    counts = np.arange(len(table.lower)).repeat(50)
    reads = table.draw(counts, np.random.default_rng(seed))
    assert reads.min() >= 0
    assert np.abs(reads - counts).max(initial=0) <= 1
    assert reads.max() <= count_max
