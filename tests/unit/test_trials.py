import numba
import numpy as np
import pytest

from imcsim.accuracy import Verdicts, verdicts
from imcsim.arch.load import load_chip
from imcsim.errors import ConfigError
from imcsim.functional.statistics import Clipping
from imcsim.graph import REAL, TERNARY, Graph, Op, Product, Tensor, Threshold
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum
from imcsim.trials import Trial, Trials, run_trials, seed_of_trial


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A layer that is misread often, its inputs, and the classes of the reference for labels."""
    table = tmp_path_factory.mktemp("misreads") / "table.csv"
    table.write_text("n,lower,higher\n" + "".join(f"{n},{0.1 if n else 0},0.1\n" for n in range(9)))
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (4, 40))
    quantizer = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    ops = (
        Op(name="in", input="x", output=Tensor("c", (40,), TERNARY), steps=(quantizer,)),
        Op(name="layer", input="c", output=Tensor("y", (4,), REAL),
           product=Product(kind="linear", weights=PlaneSum(planes=[weights], factors=[1]))),
    )  # fmt: skip
    graph = Graph(name="net", inputs=(Tensor("x", (40,), REAL),), ops=ops, outputs=("y",))
    x = rng.integers(-1, 2, (80, 40))
    return place(graph, load_chip("tim-dnn", {"tile.misreads": str(table)})), x, (x @ weights.T).argmax(axis=1)


def test_seeds_follow_from_the_seed_of_the_run_and_the_place_alone():
    assert [seed_of_trial(0, i) for i in range(3)] == [0, 1411862955063295, 6797802600172150]
    assert [seed_of_trial(7, i) for i in range(3)] == [7, 7589557795488571, 8035553396028867]


def test_a_trial_is_the_same_however_many_there_are_and_by_itself(noisy):
    few, many = run_trials(*noisy, n=2, seed=3), run_trials(*noisy, n=4, seed=3)
    assert few.trials == many.trials[:2]
    assert len({trial.n_misreads for trial in many.trials}) > 1
    (alone,) = run_trials(*noisy, n=1, seed=many.trials[3].seed).trials
    assert alone == many.trials[3]


def test_trials_are_the_same_with_one_thread_and_two(noisy):
    before = numba.get_num_threads()
    found = []
    for n_threads in (1, min(2, before)):
        numba.set_num_threads(n_threads)
        found.append(run_trials(*noisy, n=3))
    numba.set_num_threads(before)
    assert found[0] == found[1]
    assert found[0].is_random


def test_a_chip_with_nothing_random_is_executed_once(tiny_chip, tiny_graph, monkeypatch):
    executed = []
    monkeypatch.setattr("imcsim.trials.verdicts", lambda *args, **how: executed.append(how) or verdicts(*args, **how))
    x, labels = np.random.default_rng(0).normal(size=(20, 1, 4, 4)), np.zeros(20, int)
    told = []
    found = run_trials(place(tiny_graph, tiny_chip), x, labels, n=5, seed=1, progress=told.append)
    assert (len(executed), told) == (1, [5])
    assert not found.is_random
    assert len(set(found.accuracies)) == 1
    assert found.summary["n"] == 5


def test_what_a_trial_came_to_already_is_not_executed_again(noisy, monkeypatch):
    monkeypatch.setattr("imcsim.trials.verdicts", None)
    first = Verdicts(np.array([True, False]), Clipping(n_misreads=9), is_random=True)
    assert run_trials(*noisy, n=1, seed=4, first=first).trials == (Trial(4, 1, 2, 9),)


def test_the_figures_of_a_spread_by_hand():
    trials = Trials(tuple(Trial(seed, n_right, 10, 0) for seed, n_right in enumerate((5, 7, 6, 9, 8))), True)
    summary = trials.summary
    assert summary["mean"] == pytest.approx(0.7)
    assert summary["std"] == pytest.approx(np.sqrt(0.1 / 4))
    assert (summary["worst"], summary["best"]) == (0.5, 0.9)
    assert summary["quantiles"] == pytest.approx({"0.05": 0.52, "0.25": 0.6, "0.5": 0.7, "0.75": 0.8, "0.95": 0.88})
    assert trials.to_csv().splitlines()[:2] == ["trial,seed,accuracy,n_right,n_samples,n_misreads", "0,0,0.5,5,10,0"]


@pytest.mark.parametrize("n", [0, -3, 10_001, 10**30])
def test_a_number_of_trials_that_cannot_be_run_is_refused(noisy, n):
    with pytest.raises(ConfigError, match=rf"^trials: must be from 1 to 10000, got {n}$"):
        run_trials(*noisy, n=n)
