"""Products of several kernels, the gate that chooses one, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from strategies import TIM_DNN, plane_sum, variant
from torch import nn

from imcsim.errors import ConfigError, GraphError
from imcsim.functional.execute import execute
from imcsim.functional.reference import tensors_of
from imcsim.functional.steps import apply_steps
from imcsim.graph import REAL, ArgMax, Graph, Op, Product, Quantize, RealProduct, Tensor, unsigned
from imcsim.graph.capture import capture
from imcsim.mapping.digital import lane_work
from imcsim.mapping.place import place
from imcsim.quant import UnsignedActivation
from imcsim.quant.methods.selected import GatedConv2d, StepWeights

CODES = unsigned(1)


def two_kernels(**others):
    return Product(kind="linear", weights=plane_sum(np.array([[1, 0], [0, 1], [1, 1], [-1, 1]])), n_experts=2, **others)


def net(product, *, gate="choice", n_choices=2):
    ops = (
        Op(name="codes", input="x", output=Tensor("codes", (2,), CODES), steps=(Quantize(CODES),)),
        Op(
            name="gate",
            input="codes",
            output=Tensor("choice", (1,), ArgMax(n_choices).format),
            steps=(RealProduct("linear", np.eye(n_choices, 2)), ArgMax(n_choices)),
        ),
        Op(name="fc", input="codes", output=Tensor("y", (2,), REAL), product=product, gate=gate),
    )
    return Graph(name="net", inputs=(Tensor("x", (2,), REAL),), ops=ops, outputs=("y",))


def test_each_sample_meets_the_kernel_that_its_gate_chose():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    tensors = tensors_of(net(two_kernels()), x)
    assert tensors["choice"].ravel().tolist() == [0, 1, 0]  # the first one of equals
    assert tensors["y"].tolist() == [[1, 0], [1, 1], [1, 1]]
    assert execute(place(net(two_kernels()), TIM_DNN), x).tolist() == tensors["y"].tolist()


def test_no_sample_gives_no_output():
    assert execute(place(net(two_kernels()), TIM_DNN), np.zeros((0, 2))).shape == (0, 2)


def test_kernels_are_one_after_another_along_the_outputs():
    product = two_kernels()
    assert [expert.weights.planes[0].tolist() for expert in product.experts] == [[[1, 0], [0, 1]], [[1, 1], [-1, 1]]]
    assert product.shape((2,)) == (2,)
    assert (product.n_columns, product.n_weights) == (2, 8)


def test_multiply_adds_of_a_sample_are_those_of_one_kernel():
    graph = net(two_kernels())
    assert graph.n_macs(graph.ops[2]) == 4


@pytest.mark.parametrize(
    ("gate", "n_choices", "said"), [(None, 2, "got None"), ("codes", 2, "got 'codes'"), ("choice", 3, "got 'choice'")]
)
def test_several_kernels_need_a_gate_that_chooses_one_of_them(gate, n_choices, said):
    with pytest.raises(GraphError, match=f"fc: 2 kernels to choose from must have a gate that chooses one .*{said}"):
        net(two_kernels(), gate=gate, n_choices=n_choices)


def test_one_kernel_has_no_gate():
    with pytest.raises(GraphError, match="fc: 1 kernels to choose from must have a gate"):
        net(Product(kind="linear", weights=plane_sum(np.array([[1, 0], [0, 1]]))))


@pytest.mark.parametrize(
    "changes",
    [{"scale": np.array([[0.5], [1.0], [0.5], [1.0]])}, {"minus": np.array(0.5)}, {"offset": np.ones((4, 1))}],
)
def test_kernels_that_differ_in_more_than_their_codes_are_refused(changes):
    weights = replace(two_kernels().weights, **changes)
    with pytest.raises(GraphError, match="kernels to choose from must be symmetric, in one group, with one scale"):
        Product(kind="linear", weights=weights, n_experts=2)


def test_as_many_kernels_as_do_not_divide_the_outputs_are_refused():
    with pytest.raises(GraphError, match="n_experts must divide the 4 outputs, got 3"):
        Product(kind="linear", weights=two_kernels().weights, n_experts=3)


def test_a_choice_is_the_first_of_the_greatest_in_both_engines():
    x = np.random.default_rng(0).integers(0, 3, (200, 4)).astype(float)
    step = ArgMax(4)
    ours = apply_steps((step,), x, {})
    ops = (Op(name="gate", input="x", output=Tensor("y", (1,), step.format), steps=(step,)),)
    theirs = tensors_of(Graph(name="g", inputs=(Tensor("x", (4,), REAL),), ops=ops, outputs=("y",)), x)["y"]
    assert ours.ravel().tolist() == theirs.ravel().tolist() == np.argmax(x, axis=1).tolist()


@pytest.mark.parametrize(("n", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_choice_takes_as_many_bits_as_it_must_and_a_comparison_less_than_it_has_numbers(n, bits):
    assert ArgMax(n).format.bits == bits
    assert lane_work(ArgMax(n), (n,)) == {"vpe": n - 1}


def test_a_choice_of_one_is_refused():
    with pytest.raises(GraphError, match="arg max: n_choices must be at least 2, got 1"):
        ArgMax(1)


def test_a_choice_of_another_shape_is_refused():
    with pytest.raises(GraphError, match=r"arg max: must get 3 numbers, got shape \(3, 2, 2\)"):
        ArgMax(3).shape((3, 2, 2))


def test_a_chip_with_stuck_cells_refuses_kernels_to_choose_from():
    chip = variant(TIM_DNN, {"tile.imperfections.stuck_at_zero_probability": 0.1})
    with pytest.raises(ConfigError, match="fc: must have one kernel on a chip with stuck cells"):
        execute(place(net(two_kernels()), chip), np.ones((1, 2)))


def test_a_layer_of_several_kernels_is_captured_with_its_gate():
    torch.manual_seed(0)
    gated = GatedConv2d(2, 3, 3, n_experts=2, padding=1, weight_quantizer=StepWeights(2))
    graph = capture(nn.Sequential(UnsignedActivation(2), gated), torch.zeros(1, 2, 4, 4))
    (op,) = graph.products
    gate = next(other for other in graph.ops if other.output.name == op.gate)
    assert op.product.n_experts == 2
    assert [type(step).__name__ for step in gate.steps] == ["Affine", "AvgPool", "Flatten", "RealProduct", "ArgMax"]
    assert graph.tensors[op.output.name].shape == (3, 4, 4)


def test_a_layer_of_several_kernels_without_a_choice_is_refused():
    class Forgot(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = UnsignedActivation(2)
            self.gated = GatedConv2d(2, 3, 3, n_experts=2, weight_quantizer=StepWeights(2)).experts

        def forward(self, x):
            return self.gated(self.act(x), torch.zeros(1, 1))

    with pytest.raises(
        GraphError, match=r"with 0 tensors beside its input for 2 kernels x1 \(gated\), take the choice of a kernel"
    ):
        capture(Forgot(), torch.zeros(1, 2, 4, 4))


def test_codes_whose_zero_is_not_code_0_are_refused():
    class Shifted(UnsignedActivation):
        def imc_quantizer(self):
            return Quantize(replace(self.format, zero=1.0))

    gated = GatedConv2d(2, 3, 3, n_experts=2, weight_quantizer=StepWeights(2))
    with pytest.raises(GraphError, match="kernels to choose from must get codes whose zero is code 0"):
        capture(nn.Sequential(Shifted(2), gated), torch.zeros(1, 2, 4, 4))
