"""Options of single layers: exactly those layers change, nothing is left over from a network, mistakes are one line."""

import ast
import inspect
import re
import textwrap
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from commands import imcsim
from methods import check_on_tiles, example, network_of, train
from torch import nn

from imcsim.errors import ConfigError
from imcsim.graph import Product
from imcsim.graph.capture import capture
from imcsim.quant.architectures import lenet, resnet20
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.grids import Grid
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method, methods
from imcsim.quant.methods.shortcuts import ScaledSignWeights
from imcsim.quant.networks import Float, small_cnn
from imcsim.quant.tailored import Tailored, layer_and_option

LISTED = yaml.safe_load((Path(__file__).parents[1] / "golden" / "plane-counts.yaml").read_text())
TRAINING = ("optimizer", "allocate", "initialise", "before_step", "loss", "after_backward", "after_step", "deploy",
            "restore")  # fmt: skip


def network(method):
    return small_cnn(method, size=16, widths=(4, 6, 8, 8))  # four layers of the method


def planes(text, make=network, **shape):
    """Weight and activation planes of each product, with drawn weights."""
    shape = {"n_channels": 1, "size": 16} | shape
    net = drawn(make, find_method(text), drawn_images(4, **shape))
    graph = capture(net, drawn_images(1, **shape))
    return [(op.product.n_planes, graph.tensors[op.input].format.n_passes) for op in products(graph)]


def products(graph):
    return [op for op in graph.ops if isinstance(op.product, Product)]


def counts(row, method):
    """The plane counts that *row* of the table says of the options of *method*."""
    options = {name: getattr(method, name) for name in method.options()}
    return tuple(eval(str(row[side]), {"__builtins__": {}}, options) for side in ("weights", "activations"))


def bits_of(net):
    return [module.bits for module in net.modules() if isinstance(module, Grid)]


def refused(message):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


# --- layers ---------------------------------------------------------------------------------------------------------


def test_exactly_the_layer_that_is_named_changes():
    plain = planes("lsq:bits_w=2,bits_a=2")
    assert len(plain) == 6  # four between the 8-bit ones at both ends
    for number in (1, 2, 3, 4):
        wide = planes(f"lsq:bits_w=2,bits_a=2,{number}.bits_a=5")
        assert wide[number] == (plain[number][0], 5)
        assert wide[:number] + wide[number + 1 :] == plain[:number] + plain[number + 1 :]


def test_layers_and_options_go_together():
    plain, several = planes("dorefa"), planes("dorefa:bits_a=3,4.bits_w=5,2.bits_a=6,2.bits_w=3")
    assert [a for _, a in several[1:-1]] == [3, 6, 3, 3]
    assert [w for w, _ in several[1:-1]] == [plain[1][0], 3, plain[3][0], 5]
    assert (several[0], several[-1]) == (plain[0], plain[-1])


def test_weights_of_other_layers_are_drawn_alike():
    torch.manual_seed(3)
    plain = find_method("lsq").build(network).state_dict()
    torch.manual_seed(3)
    wide = find_method("lsq:3.bits_w=4").build(network).state_dict()
    assert plain.keys() == wide.keys()
    assert all(torch.equal(plain[name], wide[name]) for name in plain)


def test_a_layer_of_layers_counts_once():
    """Bi-Real's block takes its convolution from `conv_layer`: that is the same layer."""

    def made(method):
        return nn.Sequential(method.block(4, 4), method.linear_layer(4, 4))

    net = find_method("bi-real:2.magnitude_aware=false").build(made)
    signs = [module for module in net.modules() if isinstance(module, ScaledSignWeights)]
    assert [sign.is_magnitude_aware for sign in signs] == [True, False]


def test_layers_count_in_the_order_in_which_a_network_asks_for_them():
    """ResNet-20's ninth layer is the first 1x1 shortcut: 3 blocks of 2 layers come before, and 2 of its own block."""
    net = find_method("lsq:9.bits_a=7").build(resnet20)
    assert bits_of(net) == [2] * 8 + [7] + [2] * 11
    assert net[6].shortcut[0][0].bits == 7


def test_layers_that_are_linear_count_too():
    plain, wide = (planes(text, lenet, size=28) for text in ("lsq", "lsq:2.bits_a=7"))
    assert [a for _, a in wide] == [plain[0][1], plain[1][1], 7, plain[3][1]]


def test_tiles_give_what_torch_gives():
    method = find_method("lsq:bits_w=2,bits_a=2,2.bits_a=5,1.bits_w=4")
    net = train(method, method.build(network_of))
    check_on_tiles(net, example())


def row_of(identifier):
    """The method's row of the table, and which of its options it names."""
    row = LISTED["methods"][identifier]
    words = re.findall(r"\w+", f"{row['weights']} {row['activations']}")
    return row, [name for name in find_method(identifier).layer_options() if name in words]


@pytest.mark.parametrize("identifier", [identifier for identifier in LISTED["methods"] if row_of(identifier)[1]])
def test_one_layer_of_every_method_has_the_planes_of_its_options(identifier):
    """What the table of plane counts names is changed in layer 2; all hooks run, and layer 1 stays as it was."""
    (row, named), base = row_of(identifier), find_method(identifier)
    values = {name: getattr(base, name) for name in named}
    changed = {
        name: not value if isinstance(value, bool) else 4 if value == 8 else value + 1 for name, value in values.items()
    }
    method = find_method(f"{identifier}:{','.join(f'2.{name}={value}' for name, value in changed.items())}")
    teacher = network_of(Float()).eval() if method.takes_teacher else None
    graph = capture(train(method, method.build(network_of), n_steps=1, teacher=teacher), example())
    found = [(op.product.n_planes, graph.tensors[op.input].format.n_passes) for op in products(graph)]
    wanted = counts(row, replace(base, **changed))
    assert found[1:-1] == [counts(row, base), wanted]
    assert wanted != counts(row, base)


# --- nothing is left over -------------------------------------------------------------------------------------------


def test_two_networks_of_one_method_are_alike():
    method = find_method("lsq:2.bits_a=7")
    first, second = (str(method.build(network)) for _ in range(2))
    assert first == second != str(find_method("lsq").build(network))


def test_a_network_that_failed_halfway_leaves_nothing():
    method = find_method("lsq:2.bits_a=7")
    whole = str(method.build(network))

    def failing(given):
        given.block(4, 4)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        method.build(failing)
    assert str(method.build(network)) == whole


def test_a_part_of_a_network_goes_on_counting():
    def halves(method):
        return nn.Sequential(method.build(lambda given: given.block(4, 4)), method.block(4, 4))

    assert bits_of(find_method("lsq:2.bits_a=7").build(halves)) == [2, 7]


def test_layers_are_never_taken_without_being_counted():
    method = find_method("lsq:2.bits_a=7")
    with refused(
        "lsq:2.bits_a=7: must build the networks whose layers it counts, got one that takes layers by itself; write "
        "method.build(network)"
    ):
        network(method)
    assert str(method.activation(3)) == str(find_method("lsq").activation(3))  # a part that is no layer of a network


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("lsq:3.bits_a=8", "lsq:3.bits_a=8"),
        ("M5: 10.bits_a=8, 3.bits_a=3 ,bits_w=3, 3.bits_w=4", None),
        ("A1:2.stochastic=true,1.glorot=false", "binaryconnect:1.glorot=False,2.stochastic=True"),
        ("lsq:2.bits_a=3,2.bits_a=5", "lsq:2.bits_a=5"),
        ("twn:1.epsilon=0.5", "twn:1.epsilon=0.5"),
    ],
)
def test_a_method_is_written_as_it_is_read(text, whole):
    method = find_method(text)
    whole = whole or f"{find_method('M5').record.name}:bits_w=3,3.bits_w=4,3.bits_a=3,10.bits_a=8"
    assert isinstance(method, Tailored)
    assert str(method) == whole
    assert find_method(str(method)) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lsq:0.bits_a=3", "0.bits_a: the layer must be a whole number from 1 up, got '0'"),
        ("lsq:02.bits_a=3", "02.bits_a: the layer must be a whole number from 1 up, got '02'"),
        ("lsq:block2.bits_a=3", "block2.bits_a: the layer must be a whole number from 1 up, got 'block2'"),
        ("lsq:.bits_a=3", ".bits_a: the layer must be a whole number from 1 up, got ''"),
        ("lsq:2.bits=3", "lsq: options are bits_w=2, bits_a=2, serial=bit, signed_a=False; got 'bits=3'"),
        ("lsq:2.bits_a", "lsq: options are bits_w=2, bits_a=2, serial=bit, signed_a=False; got 'bits_a'"),
        ("lsq:2.bits_a=x", "lsq: bits_a: must be like 2, got 'x'"),
        ("lsq:2.bits_a=99", "lsq: bits_a must be a whole number from 1 to 8, got 99; in layer 2"),
        (
            "pact:2.decay=0.5",
            "pact: options of single layers are bits_w, bits_a, serial, alpha, since training reads the others from "
            "the method; got '2.decay=0.5'",
        ),
        (
            "lie:2.bits_low=3",
            "lie: options of single layers are none, since training reads the others from the method; got "
            "'2.bits_low=3'",
        ),
    ],
)
def test_a_layer_or_an_option_that_is_none_is_one_line(text, message):
    with refused(message):
        find_method(text)


def test_a_layer_that_the_network_has_not_is_one_line():
    with refused("lsq:5.bits_a=8: layers must be among the 4 that the network asks a method for, got 5"):
        find_method("lsq:5.bits_a=8").build(network)
    find_method("lsq:4.bits_a=8").build(network)


def test_a_layer_that_the_network_has_not_ends_the_command(tmp_path):
    done = imcsim(tmp_path, "train", "digits-cnn", "--quantizer", "lsq:3.bits_a=8", "--samples", "240",
                  "--start", "scratch", "--out", "net")  # fmt: skip
    assert done.returncode == 1
    assert "layers must be among the 2 that the network asks a method for, got 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_show_says_which_options_are_no_layers(tmp_path):
    for text in ("pact", "pact:2.bits_a=3"):
        shown = imcsim(tmp_path, "quantizer", "show", text).stdout
        assert re.search(r"options +│ bits_w=2, bits_a=2, serial=bit, alpha=4.0, decay=0.0002", shown)
        assert re.search(r"not of single layers +│ decay +│", shown)
    assert "not of single layers" not in imcsim(tmp_path, "quantizer", "show", "lsq").stdout


def test_the_layer_of_an_option():
    assert layer_and_option("12.bits_a") == (12, "bits_a")
    assert layer_and_option("bits_a") == (None, "bits_a")
    with pytest.raises(ConfigError, match=r"^²\.bits_a: "):
        layer_and_option("².bits_a")


# --- what training reads from the method ----------------------------------------------------------------------------


def read_in_training(kind):
    """The options that the hooks of training read from the method itself, by whatever they call of it."""
    names = {option.name for option in fields(kind)}
    waiting, seen, found = list(TRAINING), set(TRAINING), set()
    while waiting:
        name = waiting.pop()
        for parent in kind.__mro__:
            if name not in vars(parent) or parent in (Method, object):
                continue
            tree = ast.parse(textwrap.dedent(inspect.getsource(vars(parent)[name])))
            reads = {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            }
            n_bare = sum(isinstance(node, ast.Name) and node.id == "self" for node in ast.walk(tree))
            n_known = sum(
                isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
                for node in ast.walk(tree)
            )
            assert n_bare == n_known, f"{kind.__name__}.{name} hands itself on: what is read there cannot be seen"
            found |= reads & names
            for called in reads - names - seen:
                if inspect.isfunction(inspect.getattr_static(kind, called, None)):
                    seen.add(called)
                    waiting.append(called)
    return found


@pytest.mark.parametrize("kind", methods().values(), ids=lambda kind: kind.__name__)
def test_options_that_training_reads_from_the_method_are_no_layers(kind):
    assert read_in_training(kind) == set(kind.of_network)


def test_a_tailored_method_is_the_method_in_training():
    """Whatever is asked of a method is handed on: nothing of `Method` is left to its defaults."""
    own = {name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert own - vars(Tailored).keys() == {"layer_options"}  # which is told by options and of_network, both handed on
    for identifier in methods():
        base = find_method(identifier)
        if base.layer_options():
            name = base.layer_options()[0]
            method = find_method(f"{identifier}:1.{name}={base.options()[name]}")
            for said in ("record", "takes_teacher", "settles_at", "lowers", "of_network"):
                assert getattr(method, said) == getattr(base, said)
            assert method.options() == base.options()
            assert method.layer_options() == base.layer_options()
    classwide = {name for name, kind in inspect.get_annotations(Method).items() if "ClassVar" in str(kind)}
    assert classwide == {"record", "takes_teacher", "settles_at", "lowers", "of_network"}
