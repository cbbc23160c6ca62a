import subprocess
import sys

import numpy as np
import pytest

from imcsim.errors import ConfigError, DataError, GraphError
from imcsim.shipped import shipped_folder
from imcsim.workloads import find_workload, load_workload, shipped_workloads

TINY = '''"""A tiny network.

More about it.
"""
import numpy as np
import torch
from imcsim.quant import TernaryActivation, TernaryLinear

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(TernaryActivation(), TernaryLinear(6, 3)).eval()

def example_input():
    return torch.zeros(1, 6)

def data(folder):
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 6)), rng.integers(0, 3, 20)
'''


@pytest.fixture
def write(tmp_path):
    def write(text, name="tiny-net"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "workload.py").write_text(text)
        return folder

    return write


def test_shipped_workloads_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "digits-ternary-cnn" in shipped_workloads()
    found = find_workload("digits-ternary-cnn")
    assert (found.name, found.path) == ("digits-ternary-cnn", shipped_folder("workloads") / found.name / "workload.py")


def test_a_workload_of_ones_own_is_found_by_its_folder_or_its_file(write, tmp_path, monkeypatch):
    folder = write(TINY)
    assert find_workload(folder).name == "tiny-net"
    assert find_workload(str(folder / "workload.py")).name == "tiny-net"
    (tmp_path / "single.py").write_text(TINY)
    assert find_workload(tmp_path / "single.py").name == "single"
    monkeypatch.chdir(folder)
    assert find_workload(".").name == "tiny-net"


def test_a_workload_gives_its_graph_and_its_test_set(write):
    workload = find_workload(write(TINY))
    graph = workload.graph()
    assert (graph.name, [op.name for op in graph.ops]) == ("tiny-net", ["0", "1"])
    x, labels = workload.data()
    assert (x.shape, x.dtype, labels.shape) == ((20, 6), np.float64, (20,))
    assert load_workload(workload.path) == graph


def test_a_workload_describes_itself_or_its_first_line_does(write):
    assert find_workload(write(TINY)).description == "A tiny network."
    assert find_workload(write(TINY + '\nDESCRIPTION = "Mine"\n')).description == "Mine"
    assert find_workload(write(TINY.split('"""')[2])).description == ""


def test_a_file_is_read_when_it_is_needed_and_once(write):
    workload = find_workload(write(TINY + "\nREAD = []\nREAD.append(1)\n"))
    assert workload.module is workload.module
    assert workload.module.READ == [1]


GRAPH = '''"""A network made directly."""
import numpy as np
from imcsim.graph import REAL, TERNARY, Affine, Graph, Op, Product, Tensor, Threshold
from imcsim.ternary import PlaneSum

def graph():
    product = Product(kind="linear", weights=PlaneSum(planes=[[[1, 0], [0, -1], [1, 1]]], factors=[1]))
    codes = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    ops = (
        Op(name="codes", input="x", output=Tensor("codes", (2,), TERNARY), steps=(codes,)),
        Op(name="linear", input="codes", output=Tensor("sums", (3,), REAL), product=product),
        Op(name="twice", input="sums", output=Tensor("y", (3,), REAL), steps=(Affine(2.0, 0.0), Affine(0.5, 1.0))),
    )
    return Graph(name="mine", inputs=(Tensor("x", (2,), REAL),), ops=ops, outputs=("y",))

def expected(folder):
    return [[1, 2, 3]]
'''


def test_a_graph_made_directly_is_taken_in_place_of_a_module(write):
    workload = find_workload(write(GRAPH))
    graph = workload.graph()
    assert (graph.name, [op.name for op in graph.ops]) == ("tiny-net", ["codes", "linear"])
    assert [(step.scale, step.offset) for step in graph.ops[1].steps] == [(1.0, 1.0)]  # joined and folded
    assert workload.expected().tolist() == [[1, 2, 3]]


def test_a_graph_made_directly_needs_no_torch(write):
    code = f"from imcsim import load_workload; load_workload({str(write(GRAPH))!r})\n"
    code += "import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_code_that_workloads_share_is_read_from_beside_them(write):
    (write(GRAPH).parent / "reader.py").write_text("ANSWER = 42\n")
    text = (
        GRAPH
        + "\nfrom imcsim.workloads import module_beside\nANSWER = module_beside(__file__, '../reader.py').ANSWER\n"
    )
    assert find_workload(write(text)).module.ANSWER == 42


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_name_that_is_nearly_right_gets_a_hint():
    message = (
        r"^digits-ternary-cn: must be a shipped workload, a folder with a workload\.py, a \.py file or an \.onnx file, "
        r"got nothing there; did you mean 'digits-ternary-cnn'\?$"
    )
    with pytest.raises(ConfigError, match=message):
        find_workload("digits-ternary-cn")


def test_a_name_like_no_other_gets_the_list(tmp_path):
    with pytest.raises(ConfigError, match=r"^qqq: .*; shipped: .*digits-ternary-cnn"):
        find_workload("qqq")
    with pytest.raises(ConfigError, match=r"got nothing there"):
        find_workload(tmp_path)  # a folder without a workload.py


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere_at_all", r"workload\.py: must be a module that Python can read, got ModuleNotFoundError: No "),
        ("def build(:", r"workload\.py: must be a module that Python can read, got SyntaxError: "),
        ("raise ValueError", r"workload\.py: must be a module that Python can read, got ValueError$"),
        ("def example_input(): pass", r"workload\.py: build\(\): missing; a workload needs it, or graph\(\)$"),
        ("def build(): pass", r"workload\.py: example_input\(\): missing; a workload needs it, or graph\(\)$"),
        (
            "build = 3\ndef example_input(): pass",
            r"workload\.py: build\(\): missing; a workload needs it, or graph\(\)$",
        ),
    ],
)
def test_a_broken_module_is_one_line_that_names_the_file(write, text, message):
    with pytest.raises(ConfigError, match=message):
        find_workload(write(text)).graph()
    assert "imcsim_workload_broken" not in sys.modules


def test_mistakes_inside_build_and_data_are_one_line_that_names_the_function(write):
    with pytest.raises(
        ConfigError, match=r"workload\.py: build\(\) must run, got ZeroDivisionError: division by zero$"
    ):
        find_workload(write(TINY + "\ndef build(): 1 / 0\n")).graph()
    with pytest.raises(ConfigError, match=r"workload\.py: data\(\) must run, got TypeError: .*"):
        find_workload(write(TINY + "\ndef data(): pass\n")).data()


def test_what_capture_cannot_take_is_said_with_the_workload(write):
    text = TINY + "\ndef build(): return torch.nn.Sequential(torch.nn.Linear(6, 3))\n"
    with pytest.raises(GraphError, match=r"^tiny-net: 0: weights must be ternary or binary planes, got float32 values"):
        find_workload(write(text)).graph()
    with pytest.raises(GraphError, match=r"^tiny-net: tiny-net: must be a torch\.nn\.Module, got int$"):
        find_workload(write(TINY + "\ndef build(): return 3\n")).graph()


def test_errors_of_imcsim_pass_through_as_they_are(write):
    text = "from imcsim.errors import DataError\ndef {}(*args): raise DataError('digits: gone')\n"
    with pytest.raises(DataError, match=r"^digits: gone$"):
        find_workload(write(TINY + text.format("data"))).data()
    with pytest.raises(DataError, match=r"^digits: gone$"):
        find_workload(write("from imcsim.errors import DataError\nraise DataError('digits: gone')")).graph()


def test_what_is_no_graph_is_said(write):
    with pytest.raises(ConfigError, match=r"workload\.py: graph\(\) must give an imcsim Graph, got int$"):
        find_workload(write("def graph(): return 3")).graph()
    with pytest.raises(
        ConfigError, match=r"workload\.py: graph\(\) must run, got ZeroDivisionError: division by zero$"
    ):
        find_workload(write("def graph(): return 1 / 0")).graph()


def test_shared_code_that_is_not_there_is_said_with_its_file(write):
    text = "from imcsim.workloads import module_beside\nmodule_beside(__file__, '../reader.py')\n"
    with pytest.raises(ConfigError, match=r"reader\.py: must be a module that Python can read, got FileNotFoundError"):
        find_workload(write(text)).graph()


def test_a_workload_without_published_outputs_says_so(write):
    message = r"^tiny-net: expected\(\): missing; nobody published outputs of this workload$"
    with pytest.raises(DataError, match=message):
        find_workload(write(TINY)).expected()


def test_a_workload_without_a_test_set_says_what_to_do(write):
    workload = find_workload(write(TINY.split("def data")[0]))
    assert not workload.has_data
    message = r"^tiny-net: data\(\): missing; a workload without a test set runs with --engine simulate$"
    with pytest.raises(DataError, match=message):
        workload.data()


@pytest.mark.parametrize("given", ["np.zeros((3, 6))", "None", "('pictures', [1, 2])"])
def test_a_test_set_is_inputs_and_labels(write, given):
    with pytest.raises(DataError, match=r"workload\.py: data\(\) must give inputs and labels, got "):
        find_workload(write(TINY + f"\ndef data(folder): return {given}\n")).data()
