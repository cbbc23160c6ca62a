import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "imcsim"

ORDER = [
    {"errors", "units", "arrays", "records", "shipped", "version", "intervals"},
    {"ternary", "results", "metrics", "arch", "data"},
    {"graph", "circuit"},
    {"quant", "costs"},
    {"mapping"},
    {"functional", "sim", "analytic", "comparators"},
    {"workloads", "report", "origins", "accuracy", "tuning", "search"},
    {"trials", "ablation"},
    {"accounts"},
    {"run"},
    {"reproduce", "comparison", "train"},
    {"sweep"},
    {"cli_sweep"},
    {"cli"},
]
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
OUTSIDE = {"__init__", "__main__"}
"""The names a user types, and ``python -m imcsim``: they stand above everything."""

HOME = {
    "torch": {"graph/capture.py", "graph/exported/", "quant/", "train.py", "tuning.py", "functional/torch_kernels.py"},
    "safetensors": {"quant/", "train.py"},
    "numba": {"functional/kernels.py", "functional/conversions.py"},
    "llvmlite": {"functional/kernels.py"},
    "simpy": {"sim/"},
    "yaml": {"arch/load.py"},
    "sklearn": {"data.py"},
    "pandas": {"report/"},
    "matplotlib": {"report/", "reproduce/figures.py"},
    "plotly": {"report/"},
    "jinja2": {"report/"},
    "rich": {"report/", "cli.py", "sweep/progress.py", "sweep/status.py"},
    "typer": {"cli.py", "cli_sweep.py"},
    "optuna": {"sweep/"},
    "sqlalchemy": {"sweep/ledger.py"},
    "distributed": {"sweep/cluster.py"},
    "dask": {"sweep/cluster.py"},
    "pyarrow": {"sweep/"},
    "sqlite3": {"sweep/"},
    "onnx": {"graph/qonnx/file.py"},
    "google": {"graph/qonnx/file.py"},
}

FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: import {node.module} by its full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@every_file
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in OUTSIDE:
        return
    for module in imported_modules(path):
        library, *rest = module.split(".")
        if library == "imcsim" and rest and rest[0] != part:
            assert LEVEL[rest[0]] < LEVEL[part], f"{part} imports {module}, which comes later in the walk"


@every_file
def test_heavy_libraries_stay_at_home(path):
    where = path.relative_to(PACKAGE).as_posix()
    for module in imported_modules(path):
        library = module.split(".")[0]
        homes = HOME.get(library)
        assert homes is None or any(where.startswith(home) for home in homes), (
            f"{where} imports {library}, at home in {', '.join(sorted(homes))}"
        )


def test_every_part_of_the_package_has_its_place_in_the_order():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert parts - OUTSIDE <= set(LEVEL)


def loaded_after(code):
    """The top-level modules that a fresh process has loaded after *code*."""
    code += "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_imcsim_brings_in_no_heavy_library():
    loaded = loaded_after("import imcsim")
    assert "imcsim" in loaded
    assert not loaded & {"torch", "numba", "simpy", "pandas", "matplotlib", "plotly", "sklearn", "scipy"}


def test_an_estimate_needs_neither_torch_nor_simpy_nor_numba():
    code = """
import numpy as np
from imcsim.analytic import bounds_ps, estimate
from imcsim.arch.load import load_chip
from imcsim.costs.price import price
from imcsim.graph import REAL, TERNARY, Graph, Op, Product, Tensor, Threshold
from imcsim.mapping.lower import lower
from imcsim.mapping.place import place
from imcsim.ternary import ternary
product = Product(kind="linear", weights=ternary().plane_sum(np.ones((3, 4), dtype=int)))
quantizer = Threshold([[0.0, 1.0]], [-1, 0, 1], TERNARY)
codes = Op(name="q", input="x", output=Tensor("c", (4,), TERNARY), steps=(quantizer,))
layer = Op(name="fc", input="c", output=Tensor("y", (3,), REAL), product=product)
graph = Graph(name="g", inputs=(Tensor("x", (4,), REAL),), ops=(codes, layer), outputs=("y",))
plan = place(graph, load_chip("tim-dnn"))
assert estimate(plan).energy_pJ > 0
assert bounds_ps(lower(plan, price(plan.chip)))[0] > 0
"""
    assert not loaded_after(code) & {"torch", "simpy", "numba", "pandas", "matplotlib", "plotly"}


def test_the_names_that_a_user_types_are_there():
    import imcsim

    for name in imcsim.__all__:
        assert getattr(imcsim, name) is not None
    assert set(imcsim.__all__) == set(dir(imcsim))
    with pytest.raises(AttributeError, match="module 'imcsim' has no attribute 'simulator'"):
        imcsim.simulator  # noqa: B018


def test_a_run_that_estimates_a_large_network_brings_in_no_heavy_library(tmp_path):
    run = ["imcsim", "run", "resnet34", "--chip", "tim-dnn", "--engine", "estimate", "--out", str(tmp_path)]
    code = f"import sys, imcsim.cli; sys.argv = {run}; imcsim.cli.app(standalone_mode=False)"
    loaded = loaded_after(code)
    assert not loaded & {"torch", "simpy", "numba", "scipy", "pandas", "matplotlib", "plotly", "jinja2", "sklearn"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["origins.json", "rows.csv", "summary.json"]


def test_a_comparison_by_formula_brings_in_no_heavy_library():
    compare = ["imcsim", "compare", "resnet18", "--chip", "tim-dnn", "--chip", "v100", "--chip", "gap8-xor-net"]
    loaded = loaded_after(f"import sys, imcsim.cli; sys.argv = {compare}; imcsim.cli.app(standalone_mode=False)")
    assert "rich" in loaded
    assert not loaded & {"torch", "simpy", "numba", "scipy", "pandas", "matplotlib", "plotly", "jinja2", "sklearn"}


def test_listing_the_workloads_does_not_wait_for_torch():
    code = "import sys, imcsim.cli; sys.argv = ['imcsim', 'workload', 'list']; imcsim.cli.app(standalone_mode=False)"
    assert "torch" not in loaded_after(code)
