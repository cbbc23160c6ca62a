"""What a search must be good for, on spaces whose answer is known."""

import numpy as np
import pytest
from ledgers import InMemory

from imcsim.arch.load import load_chip
from imcsim.sweep.objectives import find_objective
from imcsim.sweep.parameters import Choices, Parameter, Range
from imcsim.sweep.pareto import hypervolume
from imcsim.sweep.search import Study
from imcsim.sweep.space import Space
from imcsim.sweep.spec import Search

SPACE = Space(
    load_chip("tim-dnn"),
    (
        Parameter("n_tiles", Range(1, 256, is_log=True, is_whole=True)),
        *(Parameter(f"tile.{name}", Range(0.0, 1.0)) for name in ("access.latency_ns", "write_row.latency_ns", "area")),
        *(Parameter(f"buffer.{name}", Choices(tuple(range(16)))) for name in ("n_banks", "width", "depth", "ports")),
    ),
)
CORNER = [1.1, 11.0]


def zdt1(points):
    """Two objectives of which one is given and the other is as good as the rest of the parameters are small.

    Source: Zitzler, Deb and Thiele, Comparison of multiobjective evolutionary algorithms, Evol. Comput. 8(2), 2000.
    """
    columns = points.columns
    first = np.log2(columns["n_tiles"]) / 8
    rest = [column if column.dtype == np.float64 else column / 15 for name, column in columns.items() if "." in name]
    waste = 1 + 9 * np.mean(rest, axis=0)
    return {"latency_ns": first, "energy_pJ": waste * (1 - np.sqrt(first / waste))}


def distance(points):
    """How far points are from the one with 16 tiles, 0.25 of every share and the fourth of every list."""
    columns = points.columns
    lists = [(column != 3) * 1.0 for name, column in columns.items() if name.startswith("buffer")]
    shares = [np.abs(column - 0.25) for name, column in columns.items() if name.startswith("tile")]
    return {"latency_ns": np.sum([*lists, *shares], axis=0) + np.abs(np.log2(columns["n_tiles"]) - 4)}


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    monkeypatch.setattr("imcsim.sweep.search.Ledger", InMemory)


def search(folder, sampler, names, judge, seed, evaluations, population):
    objectives = [find_objective(name) for name in names]
    asked = Search(sampler=sampler, evaluations=evaluations, population=population, seed=seed)
    with Study(f"sqlite:///{folder}/{sampler}-{seed}.sqlite", "law", SPACE, objectives, asked) as study:
        while (points := study.ask()) is not None:
            study.tell(points, judge(points), [None] * len(points))
        return study.finished()


def volume(figures):
    return hypervolume(np.stack([figures["latency_ns"], figures["energy_pJ"]], axis=1), [False, False], CORNER)


@pytest.mark.parametrize("seed", [0, 1])
def test_nsga2_covers_more_than_random_points_do(seed, tmp_path):
    found = search(tmp_path, "nsga2", ["latency", "energy"], zdt1, seed, 240, 24)
    rng = np.random.default_rng(seed)
    by_chance = [volume(zdt1(SPACE.from_unit(rng.random((240, 8))))) for _ in range(20)]
    assert volume(found.figures) > max(by_chance)


def test_tpe_finds_the_optimum_that_chance_does_not(tmp_path):
    found = search(tmp_path, "tpe", ["latency"], distance, 0, 150, 10)
    rng = np.random.default_rng(0)
    by_chance = [distance(SPACE.from_unit(rng.random((150, 8))))["latency_ns"].min() for _ in range(20)]
    best = found.figures["latency_ns"].min()
    assert best < 0.5 * min(by_chance)
    assert found.figures["latency_ns"][:50].min() > best
