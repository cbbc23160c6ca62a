"""Each published method, trained a little: a chip without clipping gives what its torch module gives."""

import pytest
from methods import check_on_tiles, example, network_of, train

from imcsim.graph import Product
from imcsim.quant.methods import find_method, methods
from imcsim.quant.networks import Float

LOWERED = [kind for kind in methods().values() if kind.lowers]


@pytest.mark.parametrize("kind", LOWERED, ids=lambda kind: f"{kind.record.id}-{kind.record.name}")
def test_tiles_give_what_the_trained_module_gives(kind):
    method = kind()
    teacher = network_of(Float()).eval() if method.takes_teacher else None
    net = train(method, network_of(method), teacher=teacher)
    graph = check_on_tiles(net, example())
    inner = [op for op in graph.ops if isinstance(op.product, Product)][1:-1]
    assert inner, "the layers of the method are on tiles"
    found = [(op.product.n_planes, graph.tensors[op.input].format.n_passes) for op in inner]
    assert max(found) == kind.record.n_planes
    assert kind.record.role == "bit allocation" or len(set(found)) == 1


def test_a_method_is_found_by_id_and_by_name():
    assert find_method("A5") == find_method("twn") == find_method("TWN:bits_a=8")
