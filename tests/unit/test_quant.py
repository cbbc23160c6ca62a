"""Quantized layers and activations: what they compute, and that the record they hand over says the same."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from imcsim.errors import ConfigError, DataError, GraphError
from imcsim.graph import Product, Quantize, QuantizedActivation, QuantizedProduct, Threshold
from imcsim.quant import (
    InputQuantizer,
    IntConv2d,
    IntLinear,
    SignActivation,
    SignedActivation,
    TernaryActivation,
    TernaryConv2d,
    TernaryLinear,
    UnsignedActivation,
    load_packed,
    packed_state,
    ternarize,
)
from imcsim.quant.integer import to_integers
from imcsim.quant.training import accuracy, fit, mirrored, shifted


def step_codes(step, x):
    """Codes of float32 *x* (n) as the step says, in float64; shares no code with the modules."""
    wide = np.asarray(x, dtype=np.float64)
    if isinstance(step, Quantize):
        return np.clip(np.round(wide / step.format.scale), step.format.low, step.format.high)
    (direction,), (thresholds,) = step.direction, step.thresholds
    return step.codes[(direction * wide[:, None] >= thresholds).sum(axis=1)]


def coarse_float32():
    """Every float32 number whose last 16 bits are 0, but for NaN: 65,000 numbers of all sizes."""
    numbers = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    return numbers[~np.isnan(numbers)]


def neighbours(values, n=20):
    """The float32 numbers up to *n* places beside each of *values*."""
    centre = np.asarray(values, dtype=np.float32)
    out, up, down = [centre], centre, centre
    for _ in range(n):
        up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(-np.inf))
        out += [up, down]
    return np.concatenate(out)


def set_weights(layer, values):
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values, dtype=torch.float32).reshape(layer.weight.shape))
    return layer


# Ternary weights


def test_weights_beyond_seven_tenths_of_the_mean_become_ternary():
    codes, scale = ternarize(torch.tensor([[1.0, -0.25, 0.75], [-0.5, 0.0, -2.0]]))  # mean 0.75, delta 0.525
    assert codes.tolist() == [[1, 0, 1], [0, 0, -1]]
    assert scale.item() == 1.25  # (1 + 0.75 + 2) / 3
    assert scale.shape == ()


def test_each_channel_has_its_own_delta_and_scale():
    codes, scale = ternarize(torch.tensor([[4.0, -2.0, 0.5], [0.25, 0.0, -0.125]]), per_channel=True)
    assert codes.tolist() == [[1, -1, 0], [1, 0, -1]]
    assert scale.tolist() == [[3.0], [0.1875]]


def test_a_weight_exactly_at_the_threshold_becomes_zero():
    codes, _ = ternarize(torch.tensor([1.0, 0.5, -0.5, -1.0, 2.0, -2.0, 0.5, 0.5]), delta_factor=0.5)  # mean 1
    assert codes.tolist() == [1, 0, 0, -1, 1, -1, 0, 0]


def test_weights_of_zero_have_the_scale_zero():
    codes, scale = ternarize(torch.zeros(2, 3))
    assert codes.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert scale.item() == 0


def test_the_gradient_of_ternary_weights_goes_straight_through():
    layer = set_weights(TernaryLinear(3, 1, bias=False), [1.0, -0.25, 0.75])  # codes 1, 0, 1; scale 0.875
    layer(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert layer.weight.grad.tolist() == [[1.0, 2.0, 3.0]]


def test_the_gradient_of_weights_that_are_all_zero_is_a_number():
    layer = set_weights(TernaryLinear(2, 1, bias=False), [0.0, 0.0])
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad.tolist() == [[0.0, 0.0]]


def test_the_gradient_reaches_the_input_through_the_quantized_weights():
    layer = set_weights(TernaryLinear(3, 1, bias=False), [1.0, -0.25, 0.75])
    x = torch.zeros(1, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.tolist() == [[0.875, 0.0, 0.875]]


def test_delta_factor_is_checked():
    with pytest.raises(ConfigError, match=r"delta_factor: must be from 0 to below 1, got 1; the paper takes 0\.7"):
        TernaryLinear(2, 2, delta_factor=1)


# Whole-number weights


def test_whole_number_weights_take_a_power_of_two_as_scale():
    codes, scale = to_integers(torch.tensor([1.0, -0.5, 0.1, 0.0]), 4)  # top 7; 1/7 -> scale 1/4
    assert codes.tolist() == [4, -2, 0, 0]
    assert scale.item() == 0.25


def test_a_greatest_weight_on_the_grid_takes_the_greatest_code():
    codes, scale = to_integers(torch.tensor([[127 / 64, -1 / 64], [0.0, 0.0]]), 8, per_channel=True)
    assert codes.tolist() == [[127, -1], [0, 0]]
    assert scale.tolist() == [[1 / 64], [0.0]]


def test_an_8_bit_layer_has_seven_planes():
    product = IntConv2d(3, 4, 3).imc_product()
    assert product.n_planes == 7
    assert product.weights.factors.tolist() == [1, 2, 4, 8, 16, 32, 64]


def test_the_number_of_bits_is_checked():
    with pytest.raises(ConfigError, match="bits: must be a whole number from 2 to 16, got 1"):
        IntLinear(2, 2, bits=1)
    with pytest.raises(ConfigError, match="bits: must be a whole number from 1 to 16, got 17"):
        UnsignedActivation(17)


# Layers and their records

LAYERS = {
    "ternary": lambda: TernaryConv2d(4, 6, 3, padding=1),
    "ternary per channel": lambda: TernaryConv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 2), per_channel=True),
    "ternary groups": lambda: TernaryConv2d(4, 6, 3, groups=2, dilation=2, bias=False),
    "ternary same": lambda: TernaryConv2d(4, 6, (3, 5), padding="same", dilation=(1, 2)),
    "ternary valid": lambda: TernaryConv2d(4, 6, 2, padding="valid"),
    "int8": lambda: IntConv2d(4, 6, 3, stride=2, padding=1),
    "int4 per channel": lambda: IntConv2d(4, 6, 3, bits=4, per_channel=True, bias=False),
    "ternary linear": lambda: TernaryLinear(12, 5),
    "ternary linear per channel": lambda: TernaryLinear(12, 5, per_channel=True, bias=False),
    "int linear": lambda: IntLinear(12, 5, bits=3),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_layer_computes_what_its_record_says(make):
    torch.manual_seed(1)
    layer = make().eval()
    product = layer.imc_product()
    generator = torch.Generator().manual_seed(2)
    shape = (3, 12) if product.kind == "linear" else (3, 4, 9, 8)
    x = torch.randint(-1, 2, shape, generator=generator).float()
    weights = torch.from_numpy(product.weights.to_codes()).double()
    if product.kind == "linear":
        sums = F.linear(x.double(), weights)
    else:
        sums = F.conv2d(x.double(), weights, None, product.stride, product.padding, product.dilation, product.groups)
    scale = torch.tensor(product.weights.scale.reshape(-1)).reshape(-1, *(1,) * (sums.ndim - 2))
    expected = sums.float() * scale.float()
    if layer.bias is not None:
        expected = expected + layer.bias.reshape(-1, *(1,) * (sums.ndim - 2))
    assert torch.equal(layer(x), expected)  # not about: the sums are whole numbers
    assert isinstance(product, Product)
    assert product.shape(tuple(shape[1:])) == tuple(expected.shape[1:])
    layer.train()
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_layer_follows_the_protocol_and_keeps_the_attributes_of_its_torch_parent(make):
    layer = make()
    assert isinstance(layer, QuantizedProduct)
    assert not isinstance(layer, QuantizedActivation)
    assert isinstance(layer, nn.Conv2d | nn.Linear)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (TernaryConv2d(2, 3, 3), ()),
        (TernaryConv2d(2, 3, 3, per_channel=True), (3, 1, 1, 1)),
        (TernaryLinear(2, 3), ()),
        (IntLinear(2, 3, per_channel=True), (3, 1)),
    ],
)
def test_the_scale_of_a_record_is_one_number_or_one_per_channel(layer, shape):
    assert layer.imc_product().weights.scale.shape == shape


def test_same_padding_becomes_numbers():
    assert TernaryConv2d(1, 1, (3, 5), padding="same").imc_product().padding == (1, 2)
    assert TernaryConv2d(1, 1, 3, padding="valid").imc_product().padding == (0, 0)


def test_same_padding_that_is_not_the_same_on_both_sides_is_refused():
    with pytest.raises(ConfigError, match=r"padding: 'same' must add as much on both sides, got kernel \(2, 3\) with"):
        TernaryConv2d(1, 1, (2, 3), padding="same")


def test_padding_by_anything_but_zeros_is_refused():
    with pytest.raises(ConfigError, match="padding_mode: must be 'zeros', got 'reflect'; put the padding"):
        IntConv2d(1, 1, 3, padding=1, padding_mode="reflect")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [TernaryLinear, IntLinear])
def test_weights_that_are_no_numbers_are_refused(kind, bad):
    layer = set_weights(kind(2, 1), [0.5, bad])
    with pytest.raises(GraphError, match=f"weights: must be finite numbers, got {bad}; check the training"):
        layer.imc_product()


# Activations

ACTIVATIONS = {
    "sign +1": SignActivation(),
    "sign 0": SignActivation(sign_zero=0),
    "sign -1": SignActivation(sign_zero=-1),
    "ternary": TernaryActivation(),
    "ternary 0.3": TernaryActivation(0.3),
    "ternary 0": TernaryActivation(0.0),
    **{f"u{b} {s:g}": UnsignedActivation(b, scale=s) for b in (1, 2, 3, 4, 5, 8) for s in (0.25, 1.0, 0.1, 1 / 3, 7.3)},
    "u2 top": UnsignedActivation(2, top=1.0),
    "u4 default": UnsignedActivation(4),
    "s3": SignedActivation(3),
    "s8 top": SignedActivation(8, top=2.7),
    "pixels": InputQuantizer(),
}


@pytest.mark.parametrize("module", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_an_activation_gives_what_its_step_says_for_every_float32_number_near_a_boundary(module):
    step = module.imc_quantizer()
    scale = step.format.scale
    halves = (np.arange(step.format.low - 2, step.format.high + 3) + 0.5) * scale
    numbers = np.concatenate([halves, [0.0, -0.0, *np.ravel(getattr(step, "thresholds", []))]])
    x = np.concatenate([coarse_float32(), neighbours(numbers), neighbours(-numbers)])
    codes = step_codes(step, x)
    found = module.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_array_equal(found, (codes * np.float64(scale)).astype(np.float32))


@pytest.mark.parametrize("module", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_an_activation_follows_the_protocol(module):
    assert isinstance(module, QuantizedActivation)
    assert not isinstance(module, QuantizedProduct)


@pytest.mark.parametrize(("sign_zero", "expected"), [(1, [-1, 1, 1]), (0, [-1, 0, 1]), (-1, [-1, -1, 1])])
def test_the_sign_of_zero_is_what_was_asked_for(sign_zero, expected):
    assert SignActivation(sign_zero)(torch.tensor([-0.1, 0.0, 0.1])).tolist() == expected


def test_a_sign_that_keeps_zero_gives_ternary_codes():
    assert SignActivation(0).imc_quantizer().format.kind == "ternary"
    assert SignActivation(1).imc_quantizer().format.kind == "binary"


def test_numbers_at_delta_become_zero():
    assert TernaryActivation(0.5)(torch.tensor([-0.6, -0.5, 0.2, 0.5, 0.6])).tolist() == [-1, 0, 0, 0, 1]


def test_halves_go_to_the_even_code():
    x = torch.tensor([-3.0, 0.5, 0.75, 1.5, 2.5, 3.5, 9.0])
    assert UnsignedActivation(2, scale=1.0)(x).tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert SignedActivation(3, scale=1.0)(x).tolist() == [-3, 0, 1, 2, 2, 3, 3]


def test_up_to_four_bits_are_thresholds_and_more_are_divided():
    assert isinstance(UnsignedActivation(4).imc_quantizer(), Threshold)
    assert UnsignedActivation(4).imc_quantizer().thresholds.shape == (1, 15)
    assert isinstance(UnsignedActivation(5).imc_quantizer(), Quantize)
    assert isinstance(SignedActivation(2).imc_quantizer(), Quantize)


def test_an_input_quantizer_reads_pixels_over_256_as_pixels():
    module = InputQuantizer(8)
    pixels = torch.arange(256)
    assert torch.equal(module(pixels / 256) * 256, pixels.float())
    assert module.imc_quantizer().format.scale == 1 / 256


@pytest.mark.parametrize(
    ("module", "x", "expected"),
    [
        (SignActivation(), [-1.5, -1.0, 0.0, 1.0, 1.5], [0, 1, 1, 1, 0]),
        (TernaryActivation(), [-1.5, -1.0, 0.0, 1.0, 1.5], [0, 1, 1, 1, 0]),
        (UnsignedActivation(2, scale=1.0), [-0.5, 0.0, 1.2, 3.0, 3.1], [0, 1, 1, 1, 0]),
        (SignedActivation(3, scale=1.0), [-3.5, -3.0, 0.0, 3.0, 3.1], [0, 1, 1, 1, 0]),
    ],
)
def test_the_gradient_passes_inside_the_window_alone(module, x, expected):
    x = torch.tensor(x, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.tolist() == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SignActivation(2), "sign_zero: must be -1, 0 or 1, got 2"),
        (lambda: TernaryActivation(-0.5), "delta: must be a finite number from 0 up, got -0.5"),
        (lambda: TernaryActivation(float("nan")), "delta: must be a finite number from 0 up, got nan"),
        (lambda: UnsignedActivation(2, scale=0.0), "scale: must be finite and above 0, got 0.0"),
        (lambda: SignedActivation(2, top=float("inf")), "top: must be finite and above 0, got inf"),
        (lambda: UnsignedActivation(2, scale=1, top=3), "scale: must be given without top, got scale 1 and top 3"),
        (lambda: SignedActivation(1), "bits: must be a whole number from 2 to 16, got 1"),
    ],
)
def test_arguments_of_activations_are_checked(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# Small files


class Residual(nn.Module):
    """Two convolutions with a sum around the second."""

    def __init__(self):
        super().__init__()
        self.conv1 = TernaryConv2d(1, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(4)
        self.act = TernaryActivation()
        self.conv2 = IntConv2d(4, 4, 3, padding=1, bits=4, per_channel=True, bias=False)
        self.linear = TernaryLinear(4, 3)

    def forward(self, x):
        x = self.norm1(self.conv1(x))
        x = x + self.conv2(self.act(x))
        return self.linear(self.act(x).mean(dim=(2, 3)))


def test_a_packed_network_computes_the_same_bits():
    torch.manual_seed(3)
    net, again = Residual(), Residual()
    x = torch.randn(5, 1, 6, 6)
    net(x)  # gives the batch norm numbers of its own
    state = packed_state(net)
    assert state["conv1.codes"].dtype == torch.int8
    assert "conv1.weight" not in state
    load_packed(again, state)
    assert torch.equal(again.eval()(x), net.eval()(x))
    assert all(torch.equal(a, b) for a, b in zip(packed_state(again).values(), state.values(), strict=True))


def test_a_layer_alone_can_be_packed():
    net = TernaryLinear(3, 2)
    state = packed_state(net)
    assert set(state) == {"codes", "scale", "bias"}
    load_packed(TernaryLinear(3, 2), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("codes"), "small.safetensors: must hold the tensors of TernaryLinear, got 'codes' missing"),
        (lambda s: s.update(extra=s["scale"]), "got 'extra' not known to the network; train again"),
        (
            lambda s: s.update(codes=s["codes"][:1]),
            r"codes: must have the weights' shape \(2, 3\), got \(1, 3\); train",
        ),
        (lambda s: s.update(codes=s["codes"] * 3), "codes: must be what TernaryLinear makes of weights, got others"),
        (lambda s: s.update(scale=-s["scale"]), "codes: must be what TernaryLinear makes of weights, got others"),
        (lambda s: s.update(bias=s["bias"][:1]), "small.safetensors: Error.* in loading state_dict"),
    ],
)
def test_a_file_that_does_not_fit_the_network_is_refused(change, message):
    state = packed_state(set_weights(TernaryLinear(3, 2), [1, -1, 0, 1, 0.1, -1]))
    change(state)
    with pytest.raises(DataError, match=message):
        load_packed(TernaryLinear(3, 2), state, where="small.safetensors")


# Training


@pytest.fixture
def one_thread():
    """Torch on one thread: small work is no faster on more, and much slower where others use them."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.mark.usefixtures("one_thread")
def test_training_twice_from_one_seed_gives_the_same_bits():
    def train():
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(64, 1, 4, 4, generator=generator)
        labelled = x, (x.mean(dim=(1, 2, 3)) > 0).long()
        net = nn.Sequential(
            TernaryConv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            TernaryActivation(),
            nn.Flatten(),
            TernaryLinear(16, 2),
            nn.LogSoftmax(dim=1),
        )
        accuracies = fit(
            net,
            labelled,
            labelled,
            n_epochs=8,
            batch_size=8,
            learning_rate=0.02,
            generator=generator,
            augment=lambda images, generator: mirrored(images, generator),
            say=lambda line: None,
        )
        return accuracies, accuracy(net, *labelled), packed_state(net)

    accuracies, kept, state = train()
    accuracies_again, _, state_again = train()
    assert accuracies == accuracies_again
    assert all(torch.equal(state[name], state_again[name]) for name in state)
    assert kept == max(accuracies) > 0.8


def test_a_shifted_image_keeps_its_pixels_and_takes_in_zeros():
    image = torch.zeros(200, 1, 5, 5)
    image[:, :, 2, 2] = 1
    moved = shifted(image, torch.Generator().manual_seed(0), most=1)
    places = {tuple(where.tolist()) for where in moved.nonzero()[:, 2:]}
    assert moved.sum(dim=(1, 2, 3)).tolist() == [1.0] * 200
    assert places == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}


def test_a_mirrored_image_is_itself_or_turned_left_to_right():
    image = torch.arange(3.0).expand(50, 1, 2, 3)
    rows = {tuple(row) for row in mirrored(image, torch.Generator().manual_seed(0))[:, 0, 0].tolist()}
    assert rows == {(0.0, 1.0, 2.0), (2.0, 1.0, 0.0)}
