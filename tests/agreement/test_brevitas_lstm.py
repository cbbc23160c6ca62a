"""Files of Brevitas' QuantLSTM against its own forward pass: every code, time step after time step.

With scales that are powers of two every sum is exact in float32; others are Brevitas' defaults, whose sums and sigmoids
its float32 rounds, so codes agree unless a number lies within that rounding of a limit, which none of these does.
"""

import numpy as np
import pytest
from strategies import TIM_DNN, variant

from imcsim.errors import GraphError
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph.qonnx import read_qonnx
from imcsim.mapping.place import place

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")
pytest.importorskip("onnxoptimizer", reason="onnxoptimizer is not installed: Brevitas exports nothing without it")
torch = pytest.importorskip("torch")
brevitas_nn = pytest.importorskip("brevitas.nn", reason="brevitas is not installed: nothing to compare with")

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's exporter and of named tensors

IDEAL = variant(TIM_DNN, {"tile.count_max": 16})
N_STEPS, N_SAMPLES, N_INPUTS, N_HIDDEN = 9, 6, 5, 7


def powers_of_two():
    from brevitas import quant

    act, positive = quant.Int8ActPerTensorFixedPoint, quant.Uint8ActPerTensorFixedPoint
    return {
        "weight_quant": quant.Int8WeightPerTensorFixedPoint, "io_quant": act, "gate_acc_quant": act,
        "sigmoid_quant": positive, "tanh_quant": act, "cell_state_quant": act,
    }  # fmt: skip


class Sequence(torch.nn.Module):
    """A QuantLSTM, and what follows it."""

    def __init__(self, behind=None, **options):
        super().__init__()
        self.lstm = brevitas_nn.QuantLSTM(N_INPUTS, N_HIDDEN, **options)
        self.behind = behind or (lambda hidden: hidden)

    def forward(self, x):
        return self.behind(self.lstm(x)[0])


def trained(net, shape, seed=0):
    """*net* with quantizers that have seen some numbers, in evaluation mode; and an input."""
    torch.manual_seed(seed)
    for parameter in net.parameters():
        if parameter.ndim == 2:
            torch.nn.init.uniform_(parameter, -0.8, 0.8)
    net.train()
    for _ in range(5):
        net(torch.randn(shape))
    return net.eval(), torch.randn(shape)


def written(net, example, folder):
    from brevitas.export import export_qonnx

    export_qonnx(net, example, str(folder / "lstm.onnx"), dynamo=False)
    return folder / "lstm.onnx"


def agree(graph, x, expected):
    """Hold *expected* against reference and chip; return the numbers."""
    found = reference(graph, x)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-6)
    executed = run(place(graph, IDEAL), x)
    assert np.array_equal(executed.outputs, found)
    return found


@pytest.mark.parametrize(
    ("options", "batch_first", "exact"),
    [({}, True, True), ({"bias": False}, True, False), ({"num_layers": 2}, False, True), ({}, False, False)],
)
def test_every_code_is_that_of_brevitas(options, batch_first, exact, tmp_path):
    options = {**options, "batch_first": batch_first, **(powers_of_two() if exact else {})}
    shape = (N_SAMPLES, N_STEPS, N_INPUTS) if batch_first else (N_STEPS, N_SAMPLES, N_INPUTS)
    net, x = trained(Sequence(**options), shape)
    graph = read_qonnx(written(net, x[:1] if batch_first else x[:, :1], tmp_path))
    with torch.no_grad():
        expected = net(x)
    to_image = (0, 2, 1) if batch_first else (1, 2, 0)
    sequences = x.permute(to_image).unsqueeze(2).double().numpy()
    found = agree(graph, sequences, expected.permute(to_image).numpy())
    if exact:
        assert np.array_equal(found[:, :, 0], expected.permute(to_image).numpy())
    assert len(np.unique(found)) > 20  # the gates are neither shut nor open throughout
    assert [op.product.kind for op in graph.products] == ["lstm"] * options.get("num_layers", 1)


def test_a_classifier_reads_the_last_time_step(tmp_path):
    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = brevitas_nn.QuantLSTM(N_INPUTS, N_HIDDEN, batch_first=True, **powers_of_two())
            self.linear = brevitas_nn.QuantLinear(N_HIDDEN, 3, bias=True)

        def forward(self, x):
            return self.linear(self.lstm(x)[0][:, -1])

    net, x = trained(Classifier(), (N_SAMPLES, N_STEPS, N_INPUTS))
    graph = read_qonnx(written(net, x[:1], tmp_path))
    assert [(op.product.kind, op.output.shape) for op in graph.products] == [("lstm", (7, 1, 9)), ("linear", (3,))]
    with torch.no_grad():
        expected = net(x).numpy()
    agree(graph, x.permute(0, 2, 1).unsqueeze(2).double().numpy(), expected)


def test_tokens_go_through_a_table_and_every_time_step_through_a_matrix(tmp_path):
    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = brevitas_nn.QuantEmbedding(11, N_INPUTS)
            self.lstm = brevitas_nn.QuantLSTM(N_INPUTS, N_HIDDEN, batch_first=True, **powers_of_two())
            self.linear = brevitas_nn.QuantLinear(N_HIDDEN, 4, bias=True)

        def forward(self, tokens):
            return self.linear(self.lstm(self.table(tokens))[0])

    torch.manual_seed(2)
    net, tokens = Words().train(), torch.randint(0, 11, (N_SAMPLES, N_STEPS))
    for _ in range(5):
        net(tokens)
    graph = read_qonnx(written(net.eval(), tokens[:1], tmp_path))
    assert graph.input.shape == (1, 1, N_STEPS)
    assert [op.output.shape for op in graph.ops] == [(5, 1, 9), (7, 1, 9), (4, 1, 9)]
    with torch.no_grad():
        expected = net(tokens).permute(0, 2, 1).numpy()
    agree(graph, tokens[:, None, None].double().numpy(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coupled_input_forget_gates": True}, r"QuantLSTMCell with coupled gates \(cifg\) x1 \(.*\), take coupled"),
        ({"bidirectional": True}, r"QuantLSTMCell that runs in reverse x1 \(.*\), take bidirectional=False"),
    ],
)
def test_what_no_cell_has_is_refused_by_name(options, message, tmp_path):
    net, x = trained(Sequence(batch_first=True, **options), (1, 4, N_INPUTS))
    with pytest.raises(GraphError, match=message):
        read_qonnx(written(net, x, tmp_path))
