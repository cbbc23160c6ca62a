from collections import Counter

import numpy as np
import pytest
from strategies import variant

from imcsim.costs.price import price
from imcsim.graph import (
    Add,
    Affine,
    AvgPool,
    Flatten,
    LogSoftmax,
    MaxPool,
    Quantize,
    RealProduct,
    Relu,
    Tanh,
    Threshold,
    unsigned,
)
from imcsim.mapping.digital import LANES, digital_work, is_on_host, lane_work
from imcsim.mapping.lower import lower
from imcsim.mapping.place import Split, as_they_are, place


def program_of(graph, chip, *, style="spatial", policy=as_they_are, phase="inference", n_samples=1):
    plan = place(graph, chip, style=style, policy=policy, n_samples=n_samples)
    return lower(plan, price(chip), phase=phase)


def tasks_of(program, layer):
    return {task.name.removeprefix(f"{layer}/"): task for task in program.tasks if task.layer == layer}


def test_a_layer_streams_from_the_buffer_through_tiles_and_lanes_to_the_buffer(tiny_chip, tiny_graph):
    program = program_of(tiny_graph, tiny_chip)
    assert [task.name for task in program.tasks] == [
        "conv/fetch.codes",
        "conv/fetch.codes.fill",
        "conv/issue.0",
        "conv/read.round0",
        "conv/access.round0.tile0",
        "conv/convert.round0.tile0",
        "conv/issue.lanes",
        "conv/qu",
        "conv/store",
        "linear/issue.0",
        "linear/read.round0",
        "linear/access.round0.tile1",
        "linear/convert.round0.tile1",
        "linear/issue.lanes",
        "linear/vpe",
        "linear/store",
        "linear/spill",
        "linear/spill.write",
    ]
    conv = tasks_of(program, "conv")
    assert conv["read.round0"].streams == ("conv/fetch.codes.fill",)
    assert conv["access.round0.tile0"].streams == ("conv/read.round0",)
    assert conv["store"].streams == ("conv/qu",)
    assert tasks_of(program, "linear")["issue.0"].after == ("conv/store",)


def test_a_task_keeps_apart_what_is_spent_and_what_is_waited_for(tiny_chip, tiny_graph):
    conv = tasks_of(program_of(tiny_graph, tiny_chip), "conv")
    access, convert = conv["access.round0.tile0"], conv["convert.round0.tile0"]
    # 4 vectors of 9 rows in blocks of 4: 12 accesses of 2 columns; 4 PCUs serve 16 columns in 4 rounds of 287.5 ps
    assert access.actions == {"tile.access": 12, "tile.column_read": 24}
    assert (access.n_items, access.work_ps, access.lag_ps) == (12, 12 * 2300, 0)
    assert convert.actions == {"tile.convert": 24}
    assert (convert.n_items, convert.work_ps) == (12, 12 * 4 * 287.5)
    assert convert.lag_ps == round(575 - 287.5)
    assert conv["read.round0"].actions == {"activation_buffer.read": 4 * 9 * 2}


def test_the_host_does_the_first_quantizer_and_no_task_is_written_for_it(tiny_chip, tiny_graph):
    program = program_of(tiny_graph, tiny_chip)
    assert "quantize" not in program.actions
    assert tasks_of(program, "conv")["fetch.codes"].actions == {"main_memory.read": 16 * 2}


def test_chunks_of_rows_leave_psums_that_the_reduce_unit_adds(tiny_chip, tiny_graph):
    program = program_of(tiny_graph, tiny_chip, policy=lambda *_: [Split(1, 1), Split(2, 1)])
    linear = tasks_of(program, "linear")
    # two chunks for each of 3 outputs; each psum takes 4 bits
    assert linear["psums.round0"].actions == {"psum_buffer.write": 2 * 3 * 4}
    assert linear["psums.read.round0"].actions == {"psum_buffer.read": 2 * 3 * 4}
    assert linear["reduce.round0"].actions == {"reduce_unit.add": 3}
    assert linear["vpe"].streams == ("linear/reduce.round0",)


def test_sums_wider_than_an_adder_take_several_additions(tiny_chip, tiny_graph):
    narrow = variant(tiny_chip, {"reduce_unit.adder_bits": 2})
    program = program_of(tiny_graph, narrow, policy=lambda *_: [Split(1, 1), Split(2, 1)])
    assert tasks_of(program, "linear")["reduce.round0"].actions == {"reduce_unit.add": 3 * 2}


def test_a_temporal_layer_first_brings_its_weights(tiny_chip, tiny_graph):
    program = program_of(tiny_graph, tiny_chip, style="temporal")
    conv = tasks_of(program, "conv")
    assert conv["weights.round0"].actions == {"main_memory.read": 9 * 2 * 2}
    assert conv["send.round0"].actions == {"network.transfer": 9 * 2 * 2}
    assert conv["write.round0.tile0"].actions == {"tile.write_row": 9}
    assert "conv/write.round0.tile0" in conv["read.round0"].after


def test_copies_are_read_once_and_sent_to_each(tiny_chip, tiny_graph):
    program = program_of(tiny_graph, tiny_chip, style="temporal", policy=lambda *_: [Split(1, 2), Split(1, 1)])
    conv = tasks_of(program, "conv")
    assert conv["weights.round0"].actions == {"main_memory.read": 9 * 2 * 2}
    assert conv["send.round0"].actions == {"network.transfer": 2 * 9 * 2 * 2}
    assert conv["access.round0.tile0"].actions["tile.access"] == conv["access.round0.tile1"].actions["tile.access"] == 6


def test_a_double_buffered_chip_writes_while_the_layer_before_still_computes(tiny_chip, tiny_graph):
    one_buffer = variant(tiny_chip, {"double_buffered": False})
    waits = {}
    for chip in (tiny_chip, one_buffer):
        linear = tasks_of(program_of(tiny_graph, chip, style="temporal"), "linear")
        waits[chip.double_buffered] = set(linear["weights.round0"].after)
    assert waits[True] == {"linear/issue.weights0"}
    assert waits[False] == {"linear/issue.weights0", "conv/store", "conv/access.round0.tile0"}


def test_the_setup_of_a_spatial_plan_writes_every_resident_weight(tiny_chip, tiny_graph):
    program = program_of(tiny_graph, tiny_chip, phase="setup")
    spent = sum(program.actions.values(), Counter())
    cells = 9 * 2 + 8 * 3
    assert spent == {
        "main_memory.read": 2 * cells,
        "network.transfer": 2 * cells,
        "tile.write_row": 9 + 8,
        "scheduler.issue": 2,
    }


def test_a_temporal_plan_has_no_setup(tiny_chip, tiny_graph):
    assert program_of(tiny_graph, tiny_chip, style="temporal", phase="setup").tasks == ()


def test_a_tensor_that_the_buffer_cannot_hold_goes_to_main_memory_and_comes_back(tiny_chip, tiny_graph):
    small = variant(tiny_chip, {"activation_buffer.capacity_bits": 15})
    program = program_of(tiny_graph, small)
    assert tasks_of(program, "conv")["spill.write"].actions == {"main_memory.write": 16}
    linear = tasks_of(program, "linear")
    assert linear["fetch.edges"].actions == {"main_memory.read": 16}
    assert linear["fetch.edges"].after == ("conv/spill.write",)


def test_tasks_have_names_of_their_own_and_stand_in_dependency_order(tiny_chip, tiny_graph):
    program = program_of(tiny_graph, tiny_chip, style="temporal", n_samples=3)
    seen = set()
    for task in program.tasks:
        assert task.name not in seen
        assert {*task.after, *task.streams} <= seen
        seen.add(task.name)
    assert program.n_items == sum(task.n_items for task in program.tasks)
    assert program.task_of["conv/store"].layer == "conv"


@pytest.mark.parametrize(
    ("step", "work"),
    [
        (Affine(1.0, 0.0), {"vpe": 32}),
        (Add("x"), {"vpe": 32}),
        (Relu(), {"relu": 32}),
        (Threshold([[0]], [0, 1], unsigned(1)), {"qu": 32}),
        (Quantize(unsigned(8)), {"qu": 32}),
        (MaxPool((2, 2), (2, 2)), {"vpe": 8 * 3}),
        (MaxPool((1, 1), (1, 1)), {}),
        (AvgPool((2, 2), (2, 2)), {"vpe": 8 * 4}),
        (LogSoftmax(), {"spe": 32 + 4 * 4, "vpe": 64}),
        (Tanh(), {"spe": 32}),
        (RealProduct("conv2d", np.ones((3, 2, 2, 2)), stride=(2, 2)), {"vpe": 3 * 2 * 2 * 8}),
        (Flatten(), {}),
    ],
)
def test_each_step_has_its_lane(step, work):
    assert lane_work(step, (2, 4, 4)) == work
    assert set(work) <= set(LANES)


def test_work_of_an_op_is_that_of_all_its_steps_after_its_product(tiny_graph):
    assert [digital_work(op, tiny_graph) for op in tiny_graph.ops] == [{"qu": 16}, {"qu": 8}, {"vpe": 3}]
    assert [is_on_host(op, tiny_graph) for op in tiny_graph.ops] == [True, False, False]
