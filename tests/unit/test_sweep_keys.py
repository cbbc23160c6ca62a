from dataclasses import dataclass, replace

import numpy as np
import pytest

import imcsim
from imcsim.arch.load import dump_chip, load_chip
from imcsim.sweep import keys
from imcsim.sweep.keys import SIZE, digest, keys_of, leaves, stage_rest
from imcsim.sweep.points import points_of
from imcsim.sweep.stages import Stage


def key(parameters, chip=None, rest=()):
    (found,) = keys_of(points_of([parameters]), chip or load_chip("tim-dnn"), rest)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        (None, "None"),
        (("a", "b"), ("ab",)),
        ((("a",), "b"), ("a", ("b",))),
        ({"a": 1}, {"a": 2}),
        (np.zeros(2), np.zeros(3)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2, np.float32), np.zeros(2, np.float64)),
        (b"a", "a"),
    ],
)
def test_what_differs_has_another_digest(one, other):
    assert digest(one) != digest(other)


def test_the_order_of_a_mapping_has_no_part_in_its_digest():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_an_array_that_is_not_contiguous_has_the_digest_of_its_values():
    values = np.arange(12).reshape(3, 4)
    assert digest(values.T) == digest(np.ascontiguousarray(values.T))


def test_a_record_counts_by_its_kind_and_fields():
    @dataclass(frozen=True)
    class A:
        n: int

    @dataclass(frozen=True)
    class B:
        n: int

    assert digest(A(1)) == digest(A(1))
    assert digest(A(1)) != digest(A(2))
    assert digest(A(1)) != digest(B(1))


def test_what_a_digest_does_not_know_is_refused():
    with pytest.raises(TypeError, match="must be a record, an array, a number or a text, got object"):
        digest((1, object()))


def test_a_change_to_the_value_that_the_chip_has_is_none():
    assert key({"n_tiles": 32}) == key({})
    assert key({"n_tiles": 16}) != key({})


def test_a_whole_number_for_a_real_valued_key_is_that_number():
    assert key({"main_memory.bits_per_ns": 64}) == key({"main_memory.bits_per_ns": 64.0})


def test_an_override_and_a_chip_file_with_the_same_number_have_one_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("include: tim-dnn\nname: mine\ndescription: other words\nn_tiles: 16\n")
    assert key({}, load_chip(path)) == key({"n_tiles": 16})
    (tmp_path / "whole.yaml").write_text(dump_chip(load_chip("tim-dnn", {"n_tiles": 16})))
    assert key({}, load_chip(tmp_path / "whole.yaml")) == key({"n_tiles": 16})


def test_names_and_sources_have_no_part_in_a_key():
    said = leaves(load_chip("tim-dnn"))
    assert not [name for name in said if name.rsplit(".")[-1] in ("source", "basis", "description", "name")]
    assert said["tile.count_max"] == 8


def test_swapped_values_of_two_keys_have_another_key():
    one = key({"activation_buffer.capacity_bits": 1000, "psum_buffer.capacity_bits": 2000})
    assert one != key({"activation_buffer.capacity_bits": 2000, "psum_buffer.capacity_bits": 1000})


def test_a_parameter_that_a_point_lacks_has_no_part_in_its_key():
    points = points_of([{"n_tiles": 16}, {"n_tiles": 16, "tile.serial": "trit"}])
    first, second = keys_of(points, load_chip("tim-dnn"), ())
    assert first == key({"n_tiles": 16})
    assert second == key({"n_tiles": 16, "tile.serial": "trit"}) != first


def test_mapping_counts_by_name_and_value():
    assert len({key({"mapping.batch": n}) for n in (1, 2, 3)} | {key({"mapping.style": "spatial"}), key({})}) == 5


def test_an_error_table_counts_by_what_stands_in_it(tmp_path):
    one, same, other = (tmp_path / f"{name}.csv" for name in ("one", "same", "other"))
    one.write_text("n,lower,higher\n" + "".join(f"{n},0,0.001\n" for n in range(9)))
    same.write_text(one.read_text())
    other.write_text(one.read_text().replace("0.001", "0.002"))
    assert key({"tile.misreads": str(one)}) == key({"tile.misreads": str(same)})
    assert key({"tile.misreads": str(one)}) != key({"tile.misreads": str(other)})
    before = key({"tile.misreads": str(one)})
    one.write_text(other.read_text())
    assert key({"tile.misreads": str(one)}) != before


def test_engines_samples_seed_and_version_have_a_part_in_a_key(monkeypatch):
    graph = b"g" * SIZE
    rests = [
        stage_rest(graph, Stage(("estimate",)), 0, None),
        stage_rest(graph, Stage(("simulate",)), 0, None),
        stage_rest(graph, Stage(("execute",)), 0, b"x"),
        stage_rest(graph, Stage(("execute",)), 0, b"y"),
        stage_rest(graph, Stage(("estimate",)), 1, None),
        stage_rest(b"h" * SIZE, Stage(("estimate",)), 0, None),
    ]
    assert len({key({}, rest=rest) for rest in rests}) == len(rests)
    monkeypatch.setattr(keys, "__version__", "another")
    assert key({}, rest=stage_rest(graph, Stage(("estimate",)), 0, None)) != key({}, rest=rests[0])


def test_the_order_of_the_engines_has_no_part_in_a_key():
    one, other = (stage_rest(b"g", Stage(engines), 0, None) for engines in (("a", "b"), ("b", "a")))
    assert key({}, rest=one) == key({}, rest=other)


def test_the_network_counts_by_what_it_is_and_not_by_its_name():
    graph = imcsim.load_workload("digits-ternary-cnn")
    again = imcsim.load_workload("digits-ternary-cnn")
    assert digest(graph) == digest(again)
    first = next(op for op in graph.ops if op.product is not None)
    weights = first.product.weights
    planes = weights.planes.copy()
    planes.flat[0] = 0 if planes.flat[0] else 1
    other = replace(first, product=replace(first.product, weights=replace(weights, planes=planes)))
    ops = tuple(other if op is first else op for op in graph.ops)
    assert digest(replace(graph, ops=ops)) != digest(graph)
