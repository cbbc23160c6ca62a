"""Plane counts of every method and codec, against the table of the project's notes (quantizers.md B.3 and B.5).

That networks have the counts of the records is seen in `tests/agreement/test_methods.py`.
"""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from methods import example, network_of, train

from imcsim.graph import Product
from imcsim.graph.capture import capture
from imcsim.quant.methods import find_method, methods, records
from imcsim.quant.networks import Float
from imcsim.ternary import CODECS

LISTED = yaml.safe_load(Path(__file__).with_name("plane-counts.yaml").read_text())
IDS = [
    f"{letter}{number}"
    for letter, last in (("A", 15), ("B", 10), ("T", 7), ("M", 11), ("I", 3))
    for number in range(1, last + 1)
]


def counts(row, method):
    """The counts of *row* for the options of *method*."""
    options = {field.name: getattr(method, field.name) for field in fields(method)}
    return tuple(eval(str(row[side]), {"__builtins__": {}}, options) for side in ("weights", "activations"))


def captured(method):
    """The counts of the inner layers of a small network of *method*, trained for one step."""
    teacher = network_of(Float()).eval() if method.takes_teacher else None
    graph = capture(train(method, network_of(method), n_steps=1, teacher=teacher), example())
    inner = [op for op in graph.ops if isinstance(op.product, Product)][1:-1]
    return {(op.product.n_planes, graph.tensors[op.input].format.n_passes) for op in inner}


def test_the_registry_holds_every_paper_of_the_lists():
    assert set(IDS) <= {record.id for record in records()}


def test_the_table_holds_every_paper_of_the_lists():
    assert {*LISTED["methods"], *LISTED["repeats"]} == set(IDS)


def test_listings_that_repeat_another_name_it():
    for record in records():
        if record.id in LISTED["repeats"]:
            assert record.same_as == LISTED["repeats"][record.id]


@pytest.mark.parametrize("identifier", [i for i in LISTED["methods"] if i in methods()])
def test_a_record_has_the_counts_of_the_table(identifier):
    kind = methods()[identifier]
    assert kind.record.n_planes == counts(LISTED["methods"][identifier], kind())


@pytest.mark.parametrize("row", LISTED["options"], ids=lambda row: row["method"])
def test_options_change_the_counts_as_the_table_says(row):
    assert captured(find_method(row["method"])) == {(row["weights"], row["activations"])}


@pytest.mark.parametrize("row", LISTED["codecs"], ids=lambda row: row["codec"])
def test_a_codec_takes_the_planes_of_the_table(row):
    made = [CODECS[row["codec"]](bits) for bits in row["bits"]]
    assert [codec.n_planes for codec in made] == row["planes"]
    assert [codec.offset for codec in made] == row["offsets"]
