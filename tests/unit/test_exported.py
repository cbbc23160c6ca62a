import numpy as np
import pytest
import torch
from exported_models import run_onnx
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from imcsim.graph.exported import export, model_of


def model_from(module, *inputs, name="net"):
    """The model of *module*, its numbers drawn."""
    return model_of(export(module, inputs, name), name=name)


class Of(nn.Module):
    """A module whose forward() is a function."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(*inputs) if not self._modules else self.function(self, *inputs)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomized(module):
    """*module* with drawn parameters and statistics, none of them a default."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - (0.0 if "var" in name else 0.4))
    return module.eval()


def agree(module, *inputs):
    """Whether onnxruntime makes of the model what torch makes of the module; the model."""
    module = randomized(module)
    model = model_from(module, *inputs)
    with torch.no_grad():
        wanted = module(*inputs)
    wanted = tree_leaves(wanted)
    made = run_onnx(model, [tensor.numpy() for tensor in inputs])
    assert len(made) == len(wanted)
    for ours, theirs in zip(made, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5, atol=2e-6)
    return model


IMAGE = (2, 4, 8, 6)
SEQUENCE = (2, 4, 8)

LAYERS = {
    "conv": (nn.Conv2d(4, 6, 3, padding=1, stride=(2, 1)), IMAGE),
    "conv-same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)), IMAGE),
    "conv-valid": (nn.Conv2d(4, 6, 3, padding="valid", bias=False), IMAGE),
    "conv-reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "conv-circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), IMAGE),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=2, dilation=2), SEQUENCE),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), IMAGE),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), SEQUENCE),
    "linear": (nn.Linear(8, 5), (2, 8)),
    "linear-of-sequence": (nn.Linear(8, 5), SEQUENCE),
    "linear-of-sequence-without-bias": (nn.Linear(8, 5, bias=False), SEQUENCE),
    "batch-norm": (nn.BatchNorm2d(4, eps=1e-3), IMAGE),
    "batch-norm-plain": (nn.BatchNorm1d(4, affine=False), SEQUENCE),
    "layer-norm": (nn.LayerNorm((4, 8)), SEQUENCE),
    "layer-norm-plain": (nn.LayerNorm(8, elementwise_affine=False), SEQUENCE),
    "layer-norm-without-bias": (nn.LayerNorm(8, bias=False), SEQUENCE),
    "group-norm": (nn.GroupNorm(2, 4), IMAGE),
    "instance-norm": (nn.InstanceNorm2d(4), IMAGE),
    "relu": (nn.ReLU(), IMAGE),
    "relu-in-place": (nn.ReLU(inplace=True), IMAGE),
    "relu6": (nn.ReLU6(), IMAGE),
    "hardtanh": (nn.Hardtanh(-0.5, 0.7), IMAGE),
    "leaky-relu": (nn.LeakyReLU(0.2), IMAGE),
    "prelu": (nn.PReLU(4), IMAGE),
    "prelu-one": (nn.PReLU(), IMAGE),
    "sigmoid": (nn.Sigmoid(), IMAGE),
    "tanh": (nn.Tanh(), IMAGE),
    "hardswish": (nn.Hardswish(), IMAGE),
    "hardsigmoid": (nn.Hardsigmoid(), IMAGE),
    "silu": (nn.SiLU(), IMAGE),
    "gelu": (nn.GELU(), IMAGE),
    "gelu-tanh": (nn.GELU(approximate="tanh"), IMAGE),
    "elu": (nn.ELU(0.7), IMAGE),
    "selu": (nn.SELU(), IMAGE),
    "celu": (nn.CELU(0.7), IMAGE),
    "softplus": (nn.Softplus(), IMAGE),
    "mish": (nn.Mish(), IMAGE),
    "softmax": (nn.Softmax(1), IMAGE),
    "log-softmax": (nn.LogSoftmax(-1), IMAGE),
    "max-pool": (nn.MaxPool2d(3, stride=2, padding=1), IMAGE),
    "max-pool1d": (nn.MaxPool1d(2), SEQUENCE),
    "avg-pool": (nn.AvgPool2d(2), IMAGE),
    "avg-pool-padded": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "avg-pool1d": (nn.AvgPool1d(2), SEQUENCE),
    "adaptive": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive-windows": (nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    "adaptive-max": (nn.AdaptiveMaxPool2d(1), IMAGE),
    "adaptive1d": (nn.AdaptiveAvgPool1d(1), SEQUENCE),
    "flatten": (nn.Flatten(), IMAGE),
    "unflatten": (nn.Unflatten(1, (2, 2)), IMAGE),
    "dropout": (nn.Dropout(0.5), IMAGE),
    "upsample": (nn.Upsample(scale_factor=2), IMAGE),
    "upsample-bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "pixel-shuffle": (nn.PixelShuffle(2), IMAGE),
    "channel-shuffle": (nn.ChannelShuffle(2), IMAGE),
    "zero-pad": (nn.ZeroPad2d((1, 2, 0, 1)), IMAGE),
    "replication-pad": (nn.ReplicationPad2d(1), IMAGE),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_onnxruntime_makes_the_same_of_the_model_of_a_layer(layer):
    module, shape = LAYERS[layer]
    agree(nn.Sequential(module), drawn(*shape))


FUNCTIONS = {
    "arithmetic": lambda x: (x + 1) * 0.1 - x / 3 + 2 * x - (1 - x),
    "alpha": lambda x: torch.add(x, x * x, alpha=0.3) - torch.sub(x, 2.0, alpha=3),
    "rsub": lambda x: torch.rsub(x, x.exp(), alpha=2),
    "floor-division": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "powers": lambda x: x**2 + x.abs() ** 1.5 + x.abs() ** 0.5 + torch.rsqrt(x.abs() + 1) + x.square(),
    "functions": lambda x: x.abs().sqrt() + x.sign() + (-x).exp() + x.round() + x.floor() + x.erf() + x.sin(),
    "clamp": lambda x: x.clamp(-0.3, 0.5) + x.clamp(min=0.1) + x.clamp(max=0.2) + x.clamp_min(-0.1),
    "clamp-by-tensor": lambda x: torch.clamp(x, torch.tensor(-0.3), torch.tensor(0.5)),
    "extremes": lambda x: torch.maximum(x, x.flip(0) * 0 + 0.1) if False else torch.maximum(x, -x),
    "where": lambda x: torch.where(x > 0.2, x, x * 0.5) + x.masked_fill(x < -0.3, 4.0),
    "comparisons": lambda x: (x != 0.5).float() + (x >= 0) * 2.0 + ((x <= 1) & (x > -1)).float(),
    "mean": lambda x: x.mean((2, 3)) + x.mean(dim=-1).sum(-1) + x.mean((2, 3), keepdim=True).flatten(1),
    "extremes-over-axes": lambda x: x.amax((2, 3)) + x.amin(dim=-1).amax(-1),
    "argmax": lambda x: x.argmax(1),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous().transpose(1, 2).movedim(1, -1),
    "reshape": lambda x: x.view(2, -1).reshape(2, 4, 48).unsqueeze(2).squeeze(2).unsqueeze(-1).squeeze(),
    "slices": lambda x: x[:, 1:3] + x[:, ::2] + x[:, -2:],
    "select": lambda x: x[:, 0] + x[:, -1] + x.select(1, 1) + x.narrow(1, 2, 1)[:, 0],
    "split": lambda x: x.split(2, 1)[1] + x.chunk(2, 1)[0] + torch.tensor_split(x, 2, 1)[0],
    "unbind": lambda x: x.unbind(1)[2] + x.unbind(1)[0],
    "cat": lambda x: torch.cat([x, x * 2, x[:, :1]], 1) + torch.cat([x, x, x[:, 1:2]], dim=-3),
    "stack": lambda x: torch.stack([x, -x], 1),
    "expand": lambda x: x[:, :1].expand(2, 4, 8, 6) + x.repeat(1, 1, 1, 1),
    "repeat": lambda x: x.repeat(1, 1, 2, 1, 1),
    "index": lambda x: x[:, torch.tensor([2, 0])] + x.index_select(1, torch.tensor([1, 1])),
    "pad": lambda x: functional.pad(x, (1, 0, 2, 1), value=0.5),
    "matmul": lambda x: (x @ x.transpose(-1, -2)).flatten(0, 1).bmm(x.reshape(8, 8, 6)),
    "casts": lambda x: x.double().float() + (x * 10).to(torch.int64).float(),
    "in-place": lambda x: (x * 2).add_(1).relu_().mul_(3),
    "read-behind-in-place": lambda x: (lambda y: torch.relu_(y) * 0 + y)(x - 0.2),
    "constants": lambda x: x + torch.arange(6.0).view(1, 6) * torch.ones(8, 1),
    "filled": lambda x: x + torch.zeros_like(x) + torch.ones_like(x),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x * 2, x + 1),
    "causal-attention": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3),
    "masked-attention": lambda x: functional.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(8) > 0),
    "two-outputs": lambda x: (x + 1, x[:, 0]),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_onnxruntime_makes_the_same_of_the_model_of_a_function(function):
    agree(Of(FUNCTIONS[function]), drawn(*IMAGE))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True, "bias": False}],
    ids=str,
)
def test_recurrent_layers_have_onnx_s_order_of_gates(kind, options):
    layer = kind(6, 5, **options)
    agree(Of(lambda self, x: self.layer(x), layer=layer), drawn(3, 4, 6)) if not options.get("batch_first") else None
    model = model_from(randomized(Of(lambda self, x: self.layer(x)[0], layer=layer)), drawn(3, 4, 6))
    layers = [node.name for node in model.nodes if node.kind == kind.__name__]
    assert layers == (["layer.l0", "layer.l1"] if options.get("num_layers") else ["layer"])
