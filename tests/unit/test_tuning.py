"""Networks for a chip: literal sums, gradients, names, misreads, messages, and accuracy won back by training."""

import numba
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import imcsim
from imcsim.errors import ConfigError, DataError, GraphError, MappingError
from imcsim.graph import Format
from imcsim.quant import SignActivation, TernaryActivation, TernaryConv2d, TernaryLinear, UnsignedActivation
from imcsim.tuning import codes_of
from imcsim.workloads import find_workload, module_beside

CLIPPING = {"tile.count_max": 2, "tile.rows_per_access": 4}
MISREADING = CLIPPING | {"tile.misreads": "table.csv"}


def chip(changes=CLIPPING):
    return imcsim.load_chip("tim-dnn", overrides=changes)


def linear(rows, bias=None):
    """Ternary activations and a linear layer of the ternary weights *rows*, which keep the scale 1."""
    layer = TernaryLinear(len(rows[0]), len(rows), bias=bias is not None)
    layer.weight.data = torch.tensor(rows)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return nn.Sequential(TernaryActivation(0.5), layer)


def small_network():
    """Three layers, batch norms that have seen the sums of an ideal chip."""
    torch.manual_seed(0)
    net = nn.Sequential(
        UnsignedActivation(2, scale=0.5),
        TernaryConv2d(2, 6, 3, padding=1, per_channel=True),
        nn.BatchNorm2d(6, momentum=1.0),
        TernaryActivation(0.5),
        TernaryConv2d(6, 4, 3, stride=2, groups=2),
        nn.Flatten(),
        nn.BatchNorm1d(16, momentum=1.0),
        TernaryActivation(0.5),
        TernaryLinear(16, 3),
    )
    net.train()(images(32, seed=1))
    return net


def images(n=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 2, 6, 6))).float()


@pytest.fixture
def misreading_chip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("n,lower,higher\n0,0,0.2\n1,0.1,0.1\n2,0.2,0\n")
    return chip(MISREADING)


@pytest.fixture
def one_thread():
    """Batches are small: two threads would wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- what comes out -------------------------------------------------------------------------------------------------


def test_counts_above_the_greatest_are_read_as_the_greatest():
    ones, mixed = [1.0] * 8, [1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0]
    net = linear([ones, mixed], bias=[0.0, 10.0])
    x = torch.ones(1, 8)
    assert net(x).tolist() == [[8.0, 10.0]]
    # Two blocks of 4 rows: of ones 4 + 4, read 2 + 2; of the others (3 - 1) + (1 - 3), read (2 - 1) + (1 - 2).
    assert imcsim.for_chip(net, chip(), x)(x).tolist() == [[4.0, 10.0]]
    mixed_first = torch.tensor([[1.0] * 4 + [0.0] * 4])
    assert imcsim.for_chip(net, chip(), x)(mixed_first).tolist() == [[2.0, 11.0]]


def test_the_module_itself_stays_as_it_was():
    net, x = small_network().eval(), images()
    before = net(x)
    tuned = imcsim.for_chip(net, chip(), x[:1])
    assert not torch.equal(tuned(x), before)
    assert torch.equal(net(x), before)
    tuned[1].weight.data.zero_()
    assert torch.equal(net(x), before)


def test_an_ideal_chip_changes_nothing_but_the_last_bit():
    net, x = small_network().double().eval(), images().double()
    tuned = imcsim.for_chip(net, chip({"tile.count_max": 16}), x[:1])
    torch.testing.assert_close(tuned(x), net(x), rtol=1e-12, atol=1e-12)


def test_threads_and_the_split_of_a_batch_change_no_bit():
    net, x = small_network().eval(), images(70)
    tuned = imcsim.for_chip(net, chip(), x[:1])
    found = []
    for n_threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(n_threads)
        found += [tuned(x).detach(), torch.cat([tuned(part).detach() for part in x.split(9)])]
    assert all(torch.equal(each, found[0]) for each in found[1:])


class Guided(nn.Module):
    """Two inputs and two outputs."""

    def __init__(self):
        super().__init__()
        self.codes, self.hidden, self.scores = TernaryActivation(), TernaryLinear(40, 12), TernaryLinear(12, 3)

    def forward(self, image, prior):
        hidden = self.hidden(self.codes(image))
        return self.scores(self.codes(hidden)) + prior, hidden


def test_a_network_of_several_inputs_and_outputs_clips_as_in_the_engine():
    torch.manual_seed(3)
    net, x = Guided().eval(), (torch.randn(9, 40), torch.randn(9, 3))
    chip = imcsim.load_chip("tim-dnn", overrides={"tile.count_max": 1})
    found = imcsim.for_chip(net, chip, x)(*x)
    expected = imcsim.execute(imcsim.place(imcsim.capture(net, x), chip), x)
    for ours, outputs, plain in zip(found, expected.values(), net(*x), strict=True):
        np.testing.assert_allclose(ours.detach(), outputs, atol=1e-5)
        assert not torch.equal(ours, plain)


def test_later_inputs_may_have_another_size():
    torch.manual_seed(0)
    net = nn.Sequential(TernaryActivation(), TernaryConv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1)).eval()
    tuned = imcsim.for_chip(net, chip(), images()[:1])
    large = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 2, 9, 7))).float()
    found = imcsim.execute(imcsim.place(imcsim.capture(net, large), chip()), large)
    np.testing.assert_allclose(tuned(large).detach().numpy(), found, rtol=1e-5, atol=1e-6)


def test_codes_behind_asymmetric_numbers_are_their_signs():
    form = Format("ternary", 2, scale=0.5, minus=0.2)
    assert codes_of(torch.tensor([[-0.1, 0.0, 0.5]]), form).tolist() == [[-1, 0, 1]]


# --- training -------------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_layer_without_the_tiles():
    x = images().requires_grad_()
    for net in (
        nn.Sequential(UnsignedActivation(2, scale=0.5), TernaryConv2d(2, 6, 3, padding=1, per_channel=True)),
        nn.Sequential(SignActivation(), TernaryConv2d(2, 4, (3, 1), stride=2, groups=2)),
        nn.Sequential(nn.Flatten(), TernaryActivation(), TernaryLinear(72, 3)),
    ):
        tuned = imcsim.for_chip(net, chip(), x[:1])
        gradients = []
        for each in (net, tuned):
            y = each(x)
            weights = torch.linspace(-1, 2, y.numel()).reshape(y.shape)
            gradients.append(torch.autograd.grad((y * weights).sum(), [x, *each.parameters()]))
        assert not torch.equal(net(x), tuned(x))
        for plain, on_tiles in zip(*gradients, strict=True):
            assert plain.abs().sum() > 0
            assert torch.equal(plain, on_tiles)


def test_a_batch_norm_in_training_takes_its_statistics_from_clipped_sums():
    torch.manual_seed(0)
    net = nn.Sequential(TernaryActivation(), TernaryConv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6, momentum=1.0))
    x = images(32)
    tuned = imcsim.for_chip(net, chip(), x[:1]).train()
    tuned(x)
    sums = imcsim.execute(imcsim.place(imcsim.capture(net[:2], x[:1]), chip()), x)
    np.testing.assert_allclose(tuned[2].running_mean, sums.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tuned[2].running_var, sums.var(axis=(0, 2, 3), ddof=1), rtol=1e-4)


def test_what_was_trained_loads_into_the_plain_network_and_can_be_captured():
    net, x = small_network(), images(16)
    tuned = imcsim.for_chip(net, chip(), x[:1]).train()
    optimizer = torch.optim.Adam(tuned.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(tuned(x), torch.arange(16) % 3).backward()
        optimizer.step()
    assert list(tuned.state_dict()) == list(net.state_dict())
    assert not torch.equal(net[4].weight, tuned[4].weight)
    net.load_state_dict(tuned.state_dict())
    tuned.eval()
    for each in (net, tuned):
        found = imcsim.execute(imcsim.place(imcsim.capture(each, x[:1]), chip()), x)
        np.testing.assert_allclose(tuned(x).detach().numpy(), found, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("one_thread")
def test_training_on_the_tiles_wins_accuracy_back_where_training_without_them_does_not():
    hard = chip({"tile.count_max": 4, "tile.rows_per_access": 32})
    workload = find_workload("digits-ternary-cnn").module
    (x, labels), test = workload.split("train"), workload.data()

    def accuracy_on_chip(net):
        plan = imcsim.place(imcsim.capture(net, workload.example_input()), hard)
        return np.mean(imcsim.execute(plan, test[0]).argmax(axis=1) == test[1].numpy())

    def trained(net):
        torch.manual_seed(0)
        net.train()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
        for picks in torch.randperm(len(x))[:640].split(32):
            optimizer.zero_grad()
            functional.nll_loss(net(x[picks]), labels[picks]).backward()
            optimizer.step()
        return net

    start = workload.build()
    before = accuracy_on_chip(start)
    on_tiles = accuracy_on_chip(trained(imcsim.for_chip(start, hard, workload.example_input())))
    without = accuracy_on_chip(trained(start))
    assert before < 0.3
    assert without < 0.5
    assert on_tiles > 0.7


# --- misreads -------------------------------------------------------------------------------------------------------


def test_one_seed_misreads_alike_and_another_does_not(misreading_chip):
    net, x = small_network().eval(), images()
    first, again, other, right = (
        imcsim.for_chip(net, each, x[:1], rng=np.random.default_rng(seed))(x)
        for each, seed in ((misreading_chip, 1), (misreading_chip, 1), (misreading_chip, 2), (chip(), 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, right)


def test_up_to_32_samples_misread_as_in_the_engine(misreading_chip):
    net, x = small_network().double().eval(), images(32).double()
    tuned = imcsim.for_chip(net, misreading_chip, x[:1], rng=np.random.default_rng(5))
    plan = imcsim.place(imcsim.capture(net, x[:1]), misreading_chip)
    found = imcsim.execute(plan, x, np.random.default_rng(5))
    np.testing.assert_allclose(tuned(x).detach().numpy(), found, rtol=1e-9, atol=1e-9)


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_chip_that_misreads_needs_a_generator(misreading_chip):
    with pytest.raises(ConfigError, match="rng: must be a generator for a chip that misreads or reads with"):
        imcsim.for_chip(small_network(), misreading_chip, images()[:1])


def test_a_network_of_floats_is_named_layer_by_layer():
    with pytest.raises(GraphError, match="1: weights must be ternary or binary planes, got float32 values"):
        imcsim.for_chip(nn.Sequential(TernaryActivation(), nn.Linear(4, 2)), chip(), torch.zeros(1, 4))


def test_a_layer_that_no_tile_holds_is_named():
    tree = chip().model_dump()
    tree["tile"] |= {"n_columns": 1, "n_pcus": 1}
    narrow = type(chip()).model_validate(tree)
    layer = imcsim.quant.IntLinear(4, 2, bits=4)
    with pytest.raises(MappingError, match="1: the 3 weight planes of one output must fit side by side"):
        imcsim.for_chip(nn.Sequential(TernaryActivation(), layer), narrow, torch.zeros(1, 4))


def test_a_layer_called_with_codes_of_two_formats_is_refused():
    shared = TernaryConv2d(2, 2, 1)
    net = nn.Sequential(TernaryActivation(), shared, nn.BatchNorm2d(2), UnsignedActivation(2, scale=0.5), shared)
    with pytest.raises(
        GraphError, match=r"1: must get codes of one format wherever it is called, got ternary times 1, u2 times 0\.5"
    ):
        imcsim.for_chip(net, chip(), images()[:1])


def test_a_layer_may_be_called_twice_with_codes_of_one_format():
    torch.manual_seed(0)
    shared, norm = TernaryConv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
    net = nn.Sequential(TernaryActivation(), shared, norm, TernaryActivation(), shared).eval()
    found = imcsim.execute(imcsim.place(imcsim.capture(net, images()), chip()), images())
    tuned = imcsim.for_chip(net, chip(), images())
    np.testing.assert_allclose(tuned(images()).detach().numpy(), found, rtol=1e-5, atol=1e-6)


def test_training_that_runs_away_is_named_with_its_layer():
    net = nn.Sequential(UnsignedActivation(2, scale=0.5), TernaryLinear(2, 1))
    tuned = imcsim.for_chip(net, chip(), torch.ones(1, 2))
    with pytest.raises(DataError, match=r"1: input: must be u2 codes times 0\.5, got nan"):
        tuned(torch.tensor([[1.0, float("nan")]]))
    tuned[1].weight.data[0, 0] = float("nan")
    with pytest.raises(GraphError, match="1: weights: must be finite numbers, got nan"):
        tuned(torch.ones(1, 2))


# --- the report -----------------------------------------------------------------------------------------------------


def test_the_intervals_of_the_report_are_those_of_wilson():
    report = module_beside(__file__, "../../reports/noise_aware.py")
    assert report.wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=5e-5)
    assert report.wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert report.wilson_interval(9126, 10_000) == pytest.approx((0.9069, 0.9180), abs=5e-5)


def test_a_chip_whose_instances_differ_is_refused():
    stuck = chip({"tile.imperfections.stuck_at_zero_probability": 0.01})
    with pytest.raises(ConfigError, match=r"^for_chip: must get a chip without stuck cells"):
        imcsim.for_chip(nn.Sequential(), stuck, torch.zeros(1, 2))
