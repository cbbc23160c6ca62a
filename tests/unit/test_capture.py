import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import GraphError
from imcsim.functional.reference import reference
from imcsim.graph import (
    REAL,
    TERNARY,
    Add,
    Affine,
    AvgPool,
    Flatten,
    LogSoftmax,
    MaxPool,
    Product,
    Relu,
    Sigmoid,
    Slice,
    SpatialAffine,
    Threshold,
)
from imcsim.graph.capture import as_written, capture, supported
from imcsim.quant import InputQuantizer, IntConv1d, TernaryActivation, TernaryConv1d, TernaryConv2d, TernaryLinear
from imcsim.ternary import PlaneSum


def image(channels=2, size=4, batch=1):
    return torch.zeros(batch, channels, size, size)


def types_of(graph):
    return [type(step) for op in graph.ops for step in op.steps]


class Calls(nn.Module):
    """A network that is its forward function."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def test_a_layer_of_the_network_becomes_one_op_with_its_own_name():
    net = nn.Sequential(
        TernaryActivation(), TernaryConv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), TernaryActivation()
    )
    graph = capture(net, image(), name="net")
    assert graph.name == "net"
    assert [(op.name, op.output.shape, op.output.format) for op in graph.ops] == [
        ("0", (2, 4, 4), TERNARY),
        ("1", (3, 4, 4), TERNARY),
    ]
    assert graph.ops[1].product == net[1].imc_product()
    assert [type(step) for step in graph.ops[1].steps] == [Threshold]


def test_before_any_pass_there_is_one_product_or_one_step_an_op():
    net = nn.Sequential(TernaryActivation(), TernaryConv2d(2, 3, 3), nn.ReLU())
    written = as_written(net, image())
    assert [op.name for op in written.ops] == ["0", "1", "1.scale", "2"]
    assert types_of(written) == [Threshold, Affine, Relu]


def test_scale_and_bias_of_a_layer_become_one_affine_step():
    layer = TernaryLinear(3, 2)
    layer.weight.data = torch.tensor([[2.0, -2.0, 0.0], [0.0, 0.0, 2.0]])
    layer.bias.data = torch.tensor([0.5, -1.0])
    graph = as_written(nn.Sequential(InputQuantizer(4, scale=0.5), layer), torch.zeros(1, 3))
    assert graph.ops[1].product.weights.planes.tolist() == [[[1, -1, 0], [0, 0, 1]]]
    assert graph.ops[2].steps == (Affine([1.0], [0.5, -1.0]),)  # the weights' scale 2 times the input's 0.5


def test_modules_functions_and_methods_say_the_same():
    parts = {"quantize": TernaryActivation(), "conv": TernaryConv2d(2, 3, 3, padding=1)}
    modules = nn.Sequential(
        *parts.values(), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.LogSoftmax(dim=1)
    )

    def functions(net, x):
        x = F.max_pool2d(F.relu(net.conv(net.quantize(x))), 2)
        return F.log_softmax(torch.flatten(F.avg_pool2d(x, 2), 1), dim=1)

    def methods(net, x):
        x = F.max_pool2d(net.conv(net.quantize(x)).relu(), kernel_size=(2, 2), stride=2)
        x = F.adaptive_avg_pool2d(x, 1)
        return x.reshape(x.size(0), -1).contiguous().log_softmax(-1)

    wanted = [Threshold, Affine, Relu, MaxPool, AvgPool, Flatten, LogSoftmax]
    for net in (modules, Calls(functions, **parts), Calls(methods, **parts)):
        assert types_of(as_written(net, image())) == wanted


def test_pools_keep_their_window_stride_and_padding():
    net = nn.Sequential(nn.MaxPool2d((3, 2), stride=1, padding=(1, 0)), nn.AvgPool2d(2, stride=1))
    assert [op.steps[0] for op in as_written(net, image()).ops] == [
        MaxPool((3, 2), (1, 1), (1, 0)),
        AvgPool((2, 2), (1, 1)),
    ]


def test_what_does_nothing_at_inference_is_left_out():
    net = nn.Sequential(nn.Dropout(), nn.Identity(), nn.ReLU(), nn.Dropout2d())
    assert types_of(as_written(net, image())) == [Relu]


def test_a_batch_norm_is_an_affine_step_with_its_running_statistics():
    norm = nn.BatchNorm2d(2, eps=0.0)
    norm.running_mean.copy_(torch.tensor([1.0, -2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 0.25]))
    norm.weight.data = torch.tensor([1.0, -3.0])
    norm.bias.data = torch.tensor([0.0, 10.0])
    graph = as_written(nn.Sequential(norm), image())
    assert graph.ops[0].steps == (Affine([0.5, -6.0], [-0.5, -2.0]),)
    plain = nn.BatchNorm2d(2, affine=False, eps=0.0)
    assert as_written(nn.Sequential(plain), image()).ops[0].steps == (Affine([1.0, 1.0], [0.0, 0.0]),)


@pytest.mark.parametrize("add", [lambda x, y: x + y, torch.add, lambda x, y: x.add(y)])
def test_a_residual_is_added_by_the_op_that_makes_the_later_tensor(add):
    net = Calls(lambda net, x: add(net.q(x), net.c(net.q(x))), q=TernaryActivation(), c=TernaryConv2d(2, 2, 1))
    graph = as_written(net, image())
    last = graph.ops[-1]
    assert last.steps == (Add("q"),)
    assert graph.tensors[last.input].format == REAL


def test_the_scale_of_codes_goes_along_when_they_are_added():
    def forward(net, x):
        x = net.q(x)
        return x + net.c(x)

    net = Calls(forward, q=InputQuantizer(2, scale=0.25), c=TernaryConv2d(2, 2, 1))
    assert as_written(net, image()).ops[-1].steps == (Add("q", 0.25),)


def test_one_module_called_twice_is_two_ops_with_two_names():
    net = Calls(lambda net, x: net.r(net.r(x)), r=nn.ReLU())
    assert [op.name for op in as_written(net, image()).ops] == ["r", "r#2"]


def test_a_module_is_left_in_the_mode_it_was_in():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.Dropout().eval()))
    net.train()
    net[1].eval()
    capture(net, image())
    assert [part.training for part in net.modules()] == [True, True, False, False]


def test_a_layer_of_ones_own_needs_only_the_method():
    class Mine(nn.Module):
        def forward(self, x):
            return x.sum(1, keepdim=True)

        def imc_product(self):
            return Product(kind="conv2d", weights=PlaneSum(planes=np.ones((1, 1, 2, 1, 1)), factors=[1]))

    graph = capture(nn.Sequential(TernaryActivation(), Mine()), image())
    assert graph.ops[1].product.n_rows == 2


def test_an_argument_that_keeps_its_default_is_no_input():
    class Optional(nn.Module):
        def forward(self, x, mask=None):
            return F.relu(x)

    assert types_of(as_written(Optional(), image())) == [Relu]


def test_what_is_supported_can_be_listed():
    assert "torch.nn.BatchNorm2d" in list(supported())


# --- messages -------------------------------------------------------------------------------------------------------


def test_float_weights_are_named_and_the_help_says_to_quantize():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    message = r"^0, 3: weights must be ternary or binary planes, got float32 values; quantize the model first \(imcs"
    with pytest.raises(GraphError, match=message):
        capture(net, image())


def test_operators_that_a_graph_does_not_have_come_as_one_list_with_counts_and_paths():
    inner = nn.Sequential(nn.SELU(), nn.Softplus())
    net = nn.Sequential(nn.SELU(), inner, nn.ReLU())
    message = (
        r"^net: every operator must be one that a graph has, got 3 that are not: "
        r"torch\.nn\.SELU x2 \(0, 1\.0\), take ReLU, PReLU, GELU or Hardswish; torch\.nn\.Softplus x1 \(1\.1\), take R"
    )
    with pytest.raises(GraphError, match=message):
        capture(net, image(), name="net")


def test_float_weights_and_unknown_operators_come_together():
    with pytest.raises(
        GraphError, match=r"^0: weights must be .* \| Sequential: every operator must .*SELU x1 \(1\), take ReLU"
    ):
        capture(nn.Sequential(nn.Conv2d(2, 3, 3), nn.SELU()), image())


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda net, x: x + x[:, :1], r"operator\.add of anything but two tensors of one shape x1 \(add\)"),
        (lambda net, x: torch.add(x, x, alpha=2), r"add of anything but two tensors, or one and a constant x1"),
        (lambda net, x: torch.add(x, 1, alpha=2), r"add of anything but two tensors, or one and a constant x1"),
        (lambda net, x: 1 / x, r"operator\.truediv of anything but two tensors, or one and a constant x1"),
        (lambda net, x: x / x, r"operator\.truediv by a tensor x1"),
        (lambda net, x: x * x[:, :, :1], r"getitem of anything but a range of channels x1"),
        (lambda net, x: x[:, ::2], r"operator\.getitem of anything but a range of channels x1"),
        (lambda net, x: x[:, :1] * x.mean(1, keepdim=True).mean((2, 3)), r"mul of tensors of which neither is spread"),
        (lambda net, x: x + torch.ones_like(x[:1]), r"torch\.ones_like x1"),
        (lambda net, x: x * net.w, r"mul with a constant that differs from sample to sample"),
        (lambda net, x: F.prelu(x, x[0, :, 0, 0]), r"prelu with slopes that are computed x1"),
        (lambda net, x: x.clamp(min=0), r"Tensor\.clamp without a number as its least and greatest x1"),
        (
            lambda net, x: x.mean(),
            r"Tensor\.mean over anything but channels or whole samples with keepdim, or the image",
        ),
        (lambda net, x: torch.cat([x, x]), r"cat of anything but channels that follow from the network's input x1"),
        (
            lambda net, x: torch.cat([x, net.w[:1]], 1),
            r"cat of anything but channels that follow from the network's input",
        ),
        (lambda net, x: x.cos(), r"Tensor\.cos x1 \(cos\)"),
        (lambda net, x: F.max_pool2d(x, 2, ceil_mode=True), r"max_pool2d with ceil_mode or dilation x1"),
        (lambda net, x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False), r"with ceil_mode, divisor_override or"),
        (lambda net, x: F.adaptive_avg_pool2d(x, 2), r"adaptive_avg_pool2d to anything but one value a channel x1"),
        (lambda net, x: torch.flatten(x), r"flatten of anything but all axes behind the batch x1"),
        (lambda net, x: x.reshape(2, 4, 4), r"Tensor\.reshape from \(1, 2, 4, 4\) to \(2, 4, 4\) x1"),
        (
            lambda net, x: F.log_softmax(x, 2),
            r"log_softmax over anything but the channels of \(b c\), \(b c t\) or \(b c h w\) x1",
        ),
        (lambda net, x: F.dropout(x), r"dropout that is on in evaluation mode; pass training=self\.training x1"),
    ],
)
def test_functions_are_refused_with_what_is_wrong_with_them(forward, message):
    with pytest.raises(GraphError, match=message):
        capture(Calls(forward, w=nn.Parameter(torch.zeros(2, 2, 4, 4))), image())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), r"MaxPool2d with ceil_mode, dilation or indices x1 \(0\)"),
        (nn.MaxPool2d(2, dilation=2), r"MaxPool2d with ceil_mode, dilation or indices x1 \(0\)"),
        (nn.AvgPool2d(2, ceil_mode=True), r"AvgPool2d with ceil_mode, divisor_override or count_include_pad=False x1"),
        (nn.AdaptiveAvgPool2d(2), r"AdaptiveAvgPool2d to anything but one value a channel x1 \(0\)"),
        (nn.BatchNorm2d(2, track_running_stats=False), r"BatchNorm2d without running statistics x1 \(0\)"),
        (nn.Flatten(0), r"Flatten of anything but all axes behind the batch x1 \(0\)"),
        (
            nn.LogSoftmax(dim=2),
            r"LogSoftmax over anything but the channels of \(b c\), \(b c t\) or \(b c h w\) x1 \(0\)",
        ),
    ],
)
def test_modules_are_refused_with_what_is_wrong_with_them(module, message):
    with pytest.raises(GraphError, match=message):
        capture(nn.Sequential(module), image())


def test_whatever_is_wrong_comes_in_one_line_and_what_follows_from_it_is_not_held_against_it():
    def forward(net, x):
        return net.conv(net.mish(x)) + net.again(net.sigmoid(x)) + net.transposed(x)

    net = Calls(
        forward, mish=nn.Mish(), conv=TernaryConv2d(2, 2, 1), sigmoid=nn.Sigmoid(), again=TernaryConv2d(2, 2, 1),
        transposed=nn.ConvTranspose2d(2, 2, 1),
    )  # fmt: skip
    message = (
        r"^net: every operator must be one that a graph has, got 3 that are not: "
        r"torch\.nn\.Mish x1 \(mish\), take ReLU, PReLU, GELU or Hardswish; "
        r"imcsim\.quant\.ternary\.TernaryConv2d that reads real numbers x1 \(again\), take a quantized activation "
        r"before it \(imcsim\.quant\); torch\.nn\.ConvTranspose2d x1 \(transposed\), take a quantized convolution"
    )
    with pytest.raises(GraphError, match=message) as said:
        capture(net, image(), name="net")
    assert "\n" not in str(said.value)


def test_what_gives_several_tensors_is_refused_by_its_own_name():
    def forward(net, x):
        a, b = x.chunk(2, 2)
        return net.conv(net.q(net.lstm(a.squeeze(2))[0])) + b.squeeze(2)

    net = Calls(forward, lstm=nn.LSTM(2, 2, batch_first=True), q=TernaryActivation(), conv=nn.SELU())
    message = (
        r"got 3 that are not: Tensor\.chunk that gives several tensors x1 \(chunk\), take slices of channels, x\[:, a:b"
        r"\]; torch\.nn\.LSTM that gives several tensors x1 \(lstm\), take TernaryLSTM \(imcsim\.quant\); .*SELU"
    )
    with pytest.raises(GraphError, match=message):
        capture(net, torch.zeros(1, 2, 2, 2))


def test_what_comes_behind_a_quantizer_is_looked_at_whatever_goes_into_it():
    net = nn.Sequential(nn.Mish(), TernaryActivation(), TernaryConv2d(2, 2, 1), TernaryConv2d(2, 2, 1))
    with pytest.raises(
        GraphError, match=r"got 2 that are not: .*Mish x1 \(0\), .*Conv2d that reads real numbers x1 \(3\)"
    ):
        capture(net, image())


def test_what_no_output_follows_from_is_left_out():
    def forward(net, x):
        net.aside(x)
        x.sum()
        return net.r(x)

    net = Calls(forward, r=nn.ReLU(), aside=nn.Conv2d(2, 3, 3), unused=nn.SELU())
    assert types_of(as_written(net, image())) == [Relu]


@pytest.mark.parametrize(
    ("forward", "who"),
    [
        (lambda net, x: net.r(net.s(x)) + net.s(x), None),  # the result alone is read again
        (
            lambda net, x: (lambda y: net.r(y) + y)(net.s(x)),
            r"torch\.nn\.ReLU in place, whose input is read again x1 \(r\)",
        ),
        (
            lambda net, x: (lambda y: (y.relu_(), y)[1])(net.s(x)),
            r"Tensor\.relu_ in place, whose input is read again x1",
        ),
        (
            lambda net, x: (lambda y: (y[:, :1].mul_(2), y)[1])(net.s(x)),
            r"Tensor\.mul_ in place, whose input is read ag",
        ),
    ],
)
def test_what_changes_numbers_that_others_read_is_refused(forward, who):
    net = Calls(forward, r=nn.ReLU(inplace=True), s=nn.Sigmoid())
    if who is None:
        assert types_of(as_written(net, image())) == [Sigmoid, Relu, Sigmoid, Add]
        return
    with pytest.raises(GraphError, match=who + r".*, take inplace=False, or the result"):
        capture(net, image())


# --- sequences ------------------------------------------------------------------------------------------------------


def test_sequences_are_images_of_height_one():
    net = nn.Sequential(
        TernaryActivation(), TernaryConv1d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2), nn.BatchNorm1d(4),
        nn.MaxPool1d(3, stride=2, padding=1), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(),
    )  # fmt: skip
    graph = as_written(net, torch.zeros(1, 2, 32))
    assert graph.input.shape == (2, 1, 32)
    (layer,) = graph.products
    assert (layer.product.kernel, layer.product.stride, layer.product.padding) == ((1, 3), (1, 2), (0, 1))
    assert (layer.product.dilation, layer.product.groups, layer.output.shape) == ((1, 2), 2, (4, 1, 15))
    assert [op.steps[0] for op in graph.ops[4:7]] == [
        MaxPool((1, 3), (1, 2), (0, 1)), AvgPool((1, 2), (1, 2)), AvgPool((1, 4), (1, 4)),
    ]  # fmt: skip
    assert graph.tensors[graph.output].shape == (4,)


def test_functions_over_sequences_say_the_same_as_modules():
    def functions(net, x):
        x = F.avg_pool1d(F.max_pool1d(net.conv(net.quantize(x)), 3, 2, 1), 2) + torch.arange(8.0)
        return torch.log_softmax(x.unsqueeze(2).squeeze(2).mean(2), 1)

    parts = {"quantize": TernaryActivation(), "conv": IntConv1d(2, 4, 3, padding="same", bits=4)}
    graph = as_written(Calls(functions, **parts), torch.zeros(1, 2, 32))
    assert types_of(graph) == [Threshold, Affine, MaxPool, AvgPool, SpatialAffine, AvgPool, Flatten, LogSoftmax]
    assert graph.ops[5].steps[0].offset.shape == (1, 1, 8)


def test_one_time_step_is_a_slice():
    for step in (-1, 3):
        graph = as_written(Calls(lambda net, x, step=step: x[:, :, step]), torch.zeros(1, 2, 4))
        assert graph.ops[0].steps == (Slice(3, 4, axis=2), Flatten())
        assert graph.tensors[graph.output].shape == (2,)
    with pytest.raises(GraphError, match="getitem of anything but a range of channels x1"):
        as_written(Calls(lambda net, x: x[:, :, 1:3]), torch.zeros(1, 2, 4))


def test_real_numbers_into_a_product_are_refused_with_the_layer():
    message = (
        r"TernaryConv2d that reads real numbers x1 \(1\), take a quantized activation before it \(imcsim\.quant\)$"
    )
    with pytest.raises(GraphError, match=message):
        capture(nn.Sequential(nn.ReLU(), TernaryConv2d(2, 2, 1)), image())


def test_weights_whose_offset_differs_between_inputs_are_refused():
    class Shifted(nn.Module):
        def forward(self, x):
            return x[:, :1]

        def imc_product(self):
            planes = PlaneSum(planes=np.ones((1, 1, 2, 1, 1)), factors=[1], offset=np.ones((1, 2, 1, 1)))
            return Product(kind="conv2d", weights=planes)

    message = r"Shifted: weights: offset must be one number or one for each of the 1 outputs, got shape .* x1 \(1\)$"
    with pytest.raises(GraphError, match=message):
        capture(nn.Sequential(TernaryActivation(), Shifted()), image())


def test_branches_that_depend_on_values_are_refused_with_help():
    net = Calls(lambda net, x: F.relu(x) if x.sum() > 0 else x)
    message = (
        r"^Calls: forward\(\) must be free of branches .*, got: symbolically traced .*; rewrite it, or make the part"
    )
    with pytest.raises(GraphError, match=message):
        capture(net, image())


def test_shapes_that_do_not_fit_are_refused_with_the_example_input():
    net = nn.Sequential(TernaryActivation(), TernaryConv2d(3, 2, 1))
    with pytest.raises(
        GraphError, match=r"^Sequential: forward\(\) must run on the example input \(1, 2, 4, 4\), got: "
    ):
        capture(net, image())


class Two(nn.Module):
    def forward(self, input, other, state=None):
        return input + other


def test_several_inputs_are_called_as_the_arguments_of_forward():
    for example in ((image(), image()), [image(), image()], {"other": image(), "input": image()}):
        graph = capture(Two(), example)
        assert [(tensor.name, tensor.shape) for tensor in graph.inputs] == [("input", (2, 4, 4)), ("other", (2, 4, 4))]
        assert graph.outputs == ("add",)


class Early(nn.Module):
    """Two ends, one of them read on the way to the other."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def forward(self, x):
        early = F.relu(x)
        return self.returned(early, torch.tanh(early))


@pytest.mark.parametrize(
    ("returned", "outputs"),
    [
        (lambda a, b: (a, b), ("relu", "tanh")),
        (lambda a, b: [b, (a,)], ("tanh", "relu")),
        (lambda a, b: {"last": b, "early": a}, ("last", "early")),
        (lambda a, b: {"tanh": a, "relu": b}, ("tanh", "relu")),
        (lambda a, b: (b, {"both": (a, b + 1)}), ("tanh", "both.0", "both.1")),
    ],
)
def test_several_outputs_are_called_by_their_keys_or_by_what_makes_them(returned, outputs):
    x = torch.linspace(-2, 2, 32).reshape(1, 2, 4, 4)
    net = Early(returned)
    graph = capture(net, x)
    assert graph.outputs == outputs
    found = net(x)
    flat = list(found.values()) if isinstance(found, dict) else list(found)
    flat = [t for each in flat for t in (each if isinstance(each, tuple) else [each])]
    if outputs[-1] == "both.1":
        flat = [found[0], *found[1]["both"]]
    ours = reference(graph, x)
    for name, wanted in zip(outputs, flat, strict=True):
        np.testing.assert_allclose(ours[name], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("net", "example", "message"),
    [
        (Two(), image(), r"^Two: example input must be a tensor for each .* \(input, other\), got 1; "),
        (Two(), (image(),) * 4, r"\(input, other\), got 4; give a tuple of tensors, or a dict$"),
        (Two(), {"input": image(), "y": image()}, r"\(input, other\), got input, y; give a tuple"),
        (Two(), (image(), 3), r"^Two: example input must be a tensor \(b c\), \(b c t\) or \(b c h w\), got int$"),
        (Two(), (image(), image(batch=2)), r"^Two: example input must be tensors of one batch, got 1, 2$"),
        (Two(), (), r"^Two: example input must be tensors of one batch, got no tensor$"),
        (Calls(lambda net, x: (F.relu(x), x)), image(), r"^Calls: output must be made by an op, got the input 'x'"),
        (Calls(lambda net, x: (x + 1, None)), image(), r"^Calls: forward\(\) must return tensors, .* got None$"),
        (Calls(lambda net, x: (x + 1, x.shape[1])), image(), r"return tensors, alone or in tuples and dicts, got get"),
        (Calls(lambda net, x: (x + 1,) * 2), image(), r"^Calls: outputs must be .* different tensors, got add, add$"),
        (Calls(lambda net, x: {"x": x + 1}), image(), r"^Calls: outputs must have other names than inputs, got 'x' "),
        (Calls(lambda net, x: ()), image(), r"^Calls: outputs must be one or more different tensors, got none$"),
    ],
)  # fmt: skip
def test_inputs_and_outputs_that_a_graph_cannot_have_are_said(net, example, message):
    with pytest.raises(GraphError, match=message):
        capture(net, example)


def test_an_input_that_nothing_reads_is_said():
    class Unread(nn.Module):
        def forward(self, x, mask):
            return x + 1

    with pytest.raises(GraphError, match=r"^Unread: input 'mask' must be read by an op, got none that does; leave it"):
        capture(Unread(), (image(), image()))


def test_inputs_without_a_name_are_refused():
    class Any(nn.Module):
        def forward(self, *tensors):
            return tensors[0] + tensors[1]

    with pytest.raises(GraphError, match=r"^Any: forward\(\) must name its inputs, got \*tensors$"):
        capture(Any(), (image(), image()))


def test_a_constant_is_no_input():
    net = Calls(lambda net, x: F.relu(net.w), w=nn.Parameter(torch.zeros(1, 2)))
    with pytest.raises(
        GraphError, match=r"^relu: must read the network's input or what follows from it, got a constant"
    ):
        capture(net, image())


@pytest.mark.parametrize(
    ("example", "got"),
    [
        (torch.zeros(4), r"\(4,\)"),
        (torch.zeros(0, 2, 4, 4), r"\(0, 2, 4, 4\)"),
        (np.zeros((1, 2)), "ndarray"),
        (None, "NoneType"),
    ],
)
def test_an_example_input_is_a_batch_of_vectors_sequences_or_images(example, got):
    with pytest.raises(
        GraphError, match=rf"^Sequential: example input must be a tensor \(b c\), \(b c t\) or \(b c h w\), got {got}$"
    ):
        capture(nn.Sequential(nn.ReLU()), example)


def test_only_a_torch_module_can_be_captured():
    with pytest.raises(GraphError, match=r"^function: must be a torch\.nn\.Module, got function$"):
        capture(lambda x: x, image())
