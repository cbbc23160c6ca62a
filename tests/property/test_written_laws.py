"""Laws of products of two activations on tiles: the codes of one are written into rows for each sample."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import STYLES, chips, code_formats, inputs_of, seeds, variant

from imcsim.analytic import estimate
from imcsim.analytic.counts import count_actions, count_setup, derive_actions
from imcsim.analytic.factors import how_of_factors
from imcsim.analytic.variants import estimate_variants
from imcsim.arch.load import load_chip
from imcsim.costs.price import price
from imcsim.errors import ConfigError, MappingError
from imcsim.functional.execute import execute, run
from imcsim.functional.reference import reference
from imcsim.graph import (
    REAL,
    Graph,
    MatMul,
    Op,
    Permute,
    Quantize,
    Relu,
    Slice,
    Softmax,
    Tensor,
    Threshold,
    signed,
    unsigned,
)
from imcsim.mapping.lower import lower
from imcsim.mapping.place import place
from imcsim.mapping.plan import Plan
from imcsim.sim import simulate

SIGNED, UNSIGNED = signed(3), unsigned(2)
ON_TILES = {"activation_products.done_by": "tiles"}


def quantizer(form):
    """A step to codes of *form*."""
    codes = np.arange(form.low, form.high + 1)
    codes = codes[codes != 0] if form.kind == "binary" else codes
    return Threshold((codes[1:] - 0.5)[None], codes, form)


def attention(first=SIGNED, second=UNSIGNED, shape=(2, 3, 5), *, is_transposed=True, is_shared=False):
    """Codes of the input, by other codes of it, with a softmax and codes behind."""
    x = Tensor("x", shape, REAL)
    *places, m, d = shape
    other = (*(1 if is_shared else n for n in places), m, d)
    ops = [Op(name="a", input="x", output=Tensor("a", shape, first), steps=(quantizer(first),))]
    ops.append(Op(name="b", input="x", output=Tensor("b", shape, second), steps=(Relu(), quantizer(second))))
    if is_shared:
        ops[-1] = Op(name="b", input="x", output=Tensor("b", other, second), steps=(quantizer(second), Slice(0, 1)))
    step = MatMul("b", m, is_transposed=True)
    if not is_transposed:
        turn = Permute((*range(len(places)), len(places) + 1, len(places)))
        ops[-1] = replace(ops[-1], steps=(*ops[-1].steps, turn), output=Tensor("b", (*other[:-2], d, m), second))
        step = MatMul("b", m)
    out = Tensor("y", (*places, m, m), unsigned(4))
    chances = unsigned(4, 1 / 15)
    out = Tensor("y", (*places, m, m), chances)
    ops.append(Op(name="product", input="a", output=out, steps=(step, Softmax(len(places)), Quantize(chances))))
    return Graph(name="attention", inputs=(x,), ops=tuple(ops), outputs=("y",))


@st.composite
def attentions(draw):
    """Products of codes of any two formats, of some heads."""
    size = st.integers(1, 7)
    places = draw(st.sampled_from([(), (1,), (2,), (3,)]))
    is_shared = len(places) == 1 and draw(st.booleans())
    shape = (*places, draw(size), draw(st.integers(1, 20)))
    first, second = (draw(code_formats((1.0,))) for _ in range(2))
    return attention(first, second, shape, is_transposed=draw(st.booleans()), is_shared=is_shared)


def on_tiles(chip):
    return variant(chip, ON_TILES)


laws = settings(max_examples=30)


@laws
@given(attentions(), chips(ideal=True), st.sampled_from(STYLES), st.integers(1, 2), seeds())
def test_ideal_tiles_give_the_bits_of_the_digital_side(graph, chip, style, n_samples, seed):
    x = inputs_of(graph, 3, seed)
    plan = place(graph, on_tiles(chip), n_samples=n_samples, style="temporal" if style == "temporal" else None)
    assert plan.op_of["product"].written is not None
    found = run(plan, x)
    assert np.array_equal(found.outputs, reference(graph, x))
    assert np.array_equal(found.outputs, reference(plan.graph, x))
    assert np.array_equal(found.outputs, execute(place(graph, chip), x))
    assert found.total.n_clipped_accesses == 0


@laws
@given(attentions(), chips(), st.sampled_from(STYLES), st.integers(1, 3), seeds())
def test_actions_of_formula_program_and_values_agree_and_time_lies_between_the_bounds(
    graph, chip, style, n_samples, seed
):
    chip = on_tiles(chip)
    plan = place(graph, chip, n_samples=n_samples, style="temporal" if style == "temporal" else None)
    counted, found = count_actions(plan), estimate(plan)
    assert counted == lower(plan, price(chip)).actions
    assert "product" not in count_setup(plan)
    assert not lower(plan, price(chip), phase="setup").tasks
    assert found.bounds.least_ns <= simulate(plan).latency_ns <= found.bounds.greatest_ns
    clips = run(plan, inputs_of(graph, n_samples, seed)).clipping["product"]
    assert clips.n_accesses == counted["product"]["tile.access"]
    assert clips.n_conversions == counted["product"][chip.conversion]
    layer = next(layer for layer in plan.layers if layer.name == "product")
    assert counted["product"]["tile.write_row"] >= layer.n_groups * layer.n_rows
    derived = derive_actions(plan)["product"]
    named = {name for terms in derived.values() for term in terms for name, _ in term.factors}
    assert set(how_of_factors(plan, layer, derived)) == named


@settings(max_examples=20)
@given(attentions(), st.sampled_from(STYLES))
def test_variants_of_a_chip_are_estimated_as_each_alone(graph, style):
    chip = load_chip("tim-dnn", {**ON_TILES, "n_tiles": 3})
    latencies = [1.0, 2.3, 9.0]
    told = estimate_variants(graph, chip, {"tile.write_row.latency_ns": latencies}, style=style)
    for latency_ns, time_ns, energy_pJ in zip(latencies, told.latency_ns, told.energy_pJ, strict=True):
        alone = estimate(place(graph, variant(chip, {"tile.write_row.latency_ns": latency_ns}), style=style))
        assert time_ns == pytest.approx(alone.latency_ns)
        assert energy_pJ == pytest.approx(alone.energy_pJ)


# --- by hand --------------------------------------------------------------------------------------------------------


def clipping_chip(**changes):
    return load_chip(
        "tim-dnn", {**ON_TILES, "tile.rows_per_access": 4, "tile.n_rows": 32, "tile.count_max": 2, **changes}
    )


def test_counts_beyond_the_adcs_are_clipped_block_by_block():
    """6 products of +1 in blocks of 4 and 2 rows: the ADCs see 2 and 2 of them."""
    graph = attention(unsigned(1), unsigned(1), (1, 1, 6))
    graph = replace(graph, ops=(*graph.ops[:2], replace(graph.ops[2], output=Tensor("y", (1, 1, 1), REAL),
                                                        steps=graph.ops[2].steps[:1])))  # fmt: skip
    plan = place(graph, clipping_chip())
    found = run(plan, np.ones((1, 1, 1, 6)))
    assert found.outputs.tolist() == [[[[4.0]]]]
    assert reference(graph, np.ones((1, 1, 1, 6))).tolist() == [[[[6.0]]]]
    assert found.total.n_clipped_accesses == 1


def test_rows_are_written_with_codes_from_the_buffer_or_from_main_memory():
    graph = attention(unsigned(2), unsigned(4), (2, 3, 5))
    chip = clipping_chip()
    actions = count_actions(place(graph, chip, n_samples=2))["product"]
    assert actions["tile.write_row"] == 2 * 2 * 5  # heads x samples x rows
    assert actions["network.transfer"] == 2 * 2 * 5 * 3 * 4 * 2  # cells of 4 planes x 2 bits
    spilt = place(graph, clipping_chip(**{"activation_buffer.capacity_bits": 8}))
    assert "b" in spilt.off_chip
    assert count_actions(spilt)["product"]["main_memory.read"] >= 2 * 5 * 3 * 4  # codes of 4 bits
    assert spilt.source_of_cells(spilt.layers[2]) == "main_memory.read"


def placed(graph, **changes) -> Plan:
    return place(graph, clipping_chip(**changes))


def with_real_operand():
    graph = attention()
    real = replace(graph.ops[1], output=Tensor("b", graph.ops[1].output.shape, REAL), steps=(Relu(),))
    return replace(graph, ops=(graph.ops[0], real, graph.ops[2]))


def test_what_cannot_be_is_said_in_one_line():
    with pytest.raises(
        MappingError,
        match=r"^product: a product on tiles must read symmetric codes, got real16 in 'b'; quantize it, or set "
        r"activation_products\.done_by to digital$",
    ):
        placed(with_real_operand())
    with pytest.raises(MappingError, match=r"^product: a product of two activations on tiles must be done before the "):
        place(attention(), clipping_chip(), style="pipelined")
    joined = attention()
    late = replace(joined.ops[2], steps=(Relu(), *joined.ops[2].steps))
    with pytest.raises(MappingError, match=r"^product: a product on tiles must read codes that lie in a buffer"):
        placed(replace(joined, ops=(*joined.ops[:2], late)))
    with pytest.raises(MappingError, match=r"^attention: must fit into the \d+ cells of tim-dnn at once, got product"):
        place(attention(shape=(2, 3, 64)), clipping_chip(n_tiles=1), style="spatial", n_samples=40)


def test_tiles_that_do_more_than_clip_are_refused_for_values():
    plan = placed(attention(), **{"tile.imperfections.read_noise_counts": 0.5})
    with pytest.raises(ConfigError, match=r"^product: a product of two activations must be on tiles that clip"):
        execute(plan, np.zeros((1, 2, 3, 5)), np.random.default_rng(0))
