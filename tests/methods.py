"""What tests of methods share: a small network of one, some steps of its training, and the check against tiles."""

import numpy as np
import torch
from strategies import TIM_DNN, variant
from torch import nn

from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.quant.networks import small_cnn

IDEAL = variant(TIM_DNN, {"tile.count_max": 16})
TOLERANCE = 1e-9
"""Of numbers in double precision: scales are multiplied in another order on the digital side than in torch."""


def example(n=4, *, n_channels=2, size=8, seed=0):
    """Images (n n_channels size size) as the networks take them: whole 256ths."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, n_channels, size, size))
    return torch.as_tensor(pixels / 256, dtype=torch.float64)


def network_of(method, *, seed=0, widths=(6, 8)):
    """A small network of *method* in double precision, in training mode."""
    torch.manual_seed(seed)
    return small_cnn(method, n_channels=2, size=8, n_classes=3, widths=widths).double().train()


def train(method, net, *, n_steps=3, seed=1, teacher=None):
    """Take *n_steps* of the training of *method* on drawn images, with all its hooks; leave *net* in eval mode."""
    images = example(16, seed=seed)
    labels = torch.as_tensor(np.random.default_rng(seed).integers(0, 3, 16))
    method.allocate(net, images, labels)
    method.initialise(net, images)
    optimizer = method.optimizer(net, 0.01)
    for step in range(n_steps):
        method.before_step(net, step / n_steps)
        loss = method.loss(net, images, net(images), labels, teacher)
        assert torch.isfinite(loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        method.after_backward(net)
        optimizer.step()
        method.after_step(net)
    method.deploy(net, images)
    return net.eval()


def check_on_tiles(net: nn.Module, x: torch.Tensor, *, chip=IDEAL, tolerance=TOLERANCE):
    """Tiles without clipping give the bits of the reference, and torch's numbers up to the order of real products."""
    net = net.double().eval()
    with torch.no_grad():
        theirs = net(x).numpy()
    graph = capture(net, x)
    ours = reference(graph, x.numpy())
    assert np.array_equal(run(place(graph, chip), x.numpy()).outputs, ours)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    return graph
