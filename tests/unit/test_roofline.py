import numpy as np
import pytest

from imcsim.analytic import estimate, roofline
from imcsim.analytic.roofline import from_csv, to_csv
from imcsim.arch.load import load_chip
from imcsim.errors import DataError
from imcsim.graph import REAL, TERNARY, Graph, Op, Product, Tensor, Threshold
from imcsim.mapping.place import place
from imcsim.ternary import ternary

QUANTIZE = Threshold([[0.0, 1.0]], [-1, 0, 1], TERNARY)


def product(n_in: int, n_out: int) -> Product:
    return Product(kind="linear", weights=ternary().plane_sum(np.ones((n_out, n_in), dtype=int)))


GRAPH = Graph(
    name="two-layers",
    inputs=(Tensor("x", (64,), REAL),),
    ops=(
        Op(name="q", input="x", output=Tensor("codes", (64,), TERNARY), steps=(QUANTIZE,)),
        Op(name="a", input="codes", output=Tensor("h", (128,), TERNARY), product=product(64, 128), steps=(QUANTIZE,)),
        Op(name="b", input="h", output=Tensor("g", (32,), TERNARY), product=product(128, 32), steps=(QUANTIZE,)),
        Op(name="c", input="g", output=Tensor("y", (3,), REAL), product=product(32, 3)),
    ),
    outputs=("y",),
)


def rows(**how):
    plan = place(GRAPH, load_chip("tim-dnn"), **how)
    return {row.layer: row for row in roofline(plan, estimate(plan))}, estimate(plan)


def test_the_roofs_are_the_tiles_and_the_bandwidths_of_the_chip_file():
    first = rows()[0]["a"]
    assert first.peak_operations_per_ns == pytest.approx(32 * 2 * 16 * 256 / 2.3)
    assert first.main_memory_bits_per_ns == 2048
    assert first.buffer_bits_per_ns == 512


def test_a_layer_has_two_operations_a_weight_and_moves_its_codes():
    found, told = rows(style="spatial")
    assert list(found) == ["a", "b", "c"]  # what the host quantizes is no layer on tiles
    assert found["a"].operations == 2 * 64 * 128
    assert found["a"].main_memory_bits == 64 * 2  # the codes, two bits each
    assert found["a"].operations_per_main_memory_bit == 128
    assert found["a"].operations_per_ns == pytest.approx(2 * 64 * 128 / told.times["a"].added_ns)


def test_a_layer_between_others_moves_nothing_from_main_memory():
    found = rows(style="spatial")[0]
    assert found["b"].operations_per_main_memory_bit is None
    assert found["b"].operations_per_buffer_bit is not None


def test_weights_that_are_loaded_are_traffic_of_their_layer():
    found = rows(style="temporal")[0]
    assert found["a"].main_memory_bits == 64 * 2 + 64 * 128 * 2
    assert found["b"].main_memory_bits == 128 * 32 * 2


def test_a_batch_has_as_many_times_the_operations():
    assert rows(n_samples=4)[0]["a"].operations == 4 * 2 * 64 * 128


def test_no_layer_is_above_the_roof_of_the_tiles_or_of_the_buffers():
    for how in ({"style": "spatial"}, {"style": "temporal"}, {"n_samples": 64}):
        for row in rows(**how)[0].values():
            assert row.operations_per_ns <= row.peak_operations_per_ns
            assert row.operations_per_ns <= row.operations_per_buffer_bit * row.buffer_bits_per_ns


def test_rows_come_back_from_csv():
    found = list(rows()[0].values())
    assert from_csv(to_csv(found), "roofline.csv") == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "layer\n" + text, "roofline.csv: must begin with the columns chip,workload,.*, got layer"),
        (lambda text: text[: text.rindex(",")] + "\n", "roofline.csv: line 4 must be a layer below its roofs, got"),
        (lambda text: text.replace("2048.0", "nan", 1), "roofline.csv: line 2 must be a layer below its roofs, got"),
    ],
)
def test_a_damaged_table_is_told(change, message):
    with pytest.raises(DataError, match=message):
        from_csv(change(to_csv(rows()[0].values())), "roofline.csv")
