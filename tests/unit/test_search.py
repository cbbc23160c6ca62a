from collections import Counter

import pytest
from strategies import variant

from imcsim.analytic import estimate
from imcsim.errors import ConfigError, MappingError
from imcsim.mapping.place import POLICIES, Split, place, splits_of
from imcsim.search import _neighbours, place_by, search
from imcsim.sim import simulate


def score(plan, objective):
    trace = simulate(plan)
    return {"latency": trace.latency_ns, "energy": trace.energy_pJ, "edp": trace.energy_pJ * trace.latency_ns}[
        objective
    ]


def splits(plan):
    return [(layer.n_row_chunks, layer.n_replicas) for layer in plan.layers if layer.is_on_tiles]


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
@pytest.mark.parametrize("style", ["spatial", "temporal"])
def test_a_search_is_never_worse_than_any_policy(tiny_chip, tiny_graph, objective, style):
    found = search(tiny_graph, tiny_chip, style=style, objective=objective, n_trials=12, n_samples=2)
    starts = [place(tiny_graph, tiny_chip, style=style, n_samples=2, policy=policy) for policy in POLICIES.values()]
    assert score(found.plan, objective) <= min(score(plan, objective) for plan in starts)
    assert [trial.origin for trial in found.trials[:3]] == list(POLICIES)
    assert len(found.trials) <= 12
    assert found.plan.style == style
    assert not found.was_stopped


def test_a_found_plan_covers_every_weight_once_in_each_copy(tiny_chip, tiny_graph):
    plan = search(tiny_graph, tiny_chip, style="temporal", objective="edp", n_trials=12).plan
    for layer in plan.layers:
        covered = Counter(
            (s.group, s.replica, row, column)
            for round_ in layer.rounds
            for s in round_.shards
            for row in range(s.row_start, s.row_stop)
            for column in range(s.column_start, s.column_stop)
        )
        assert len(covered) == layer.n_groups * layer.n_rows * layer.n_columns * layer.n_replicas
        assert set(covered.values()) <= {1}


def test_the_same_seed_gives_the_same_plan(tiny_chip, tiny_graph):
    one, two = (search(tiny_graph, tiny_chip, style="temporal", seed=7, n_trials=15) for _ in range(2))
    assert splits(one.plan) == splits(two.plan)
    assert one.trials == two.trials


def test_a_search_by_formula_changes_layers_to_splits_that_they_offer(tiny_chip, tiny_graph):
    chip = variant(tiny_chip, {"psum_buffer.write.bits_per_ns": 0.05, "psum_buffer.read.bits_per_ns": 0.05})
    found = search(tiny_graph, chip, style="temporal", engine="estimate", n_trials=40)
    assert {trial.origin for trial in found.trials[len(POLICIES) :]} <= {"conv", "linear"}
    assert min(trial.latency_ns for trial in found.trials) == estimate(found.plan).latency_ns
    for layer, split in zip((a for a in found.plan.layers if a.is_on_tiles), splits(found.plan), strict=True):
        assert split in [(s.n_row_chunks, s.n_replicas) for s in splits_of(layer, chip)]


def test_an_interrupted_search_keeps_the_best_so_far(tiny_chip, tiny_graph):
    def stop(what, done, total):
        assert (what, total) == ("search", 60)
        if done == 2:
            raise KeyboardInterrupt

    found = search(tiny_graph, tiny_chip, style="temporal", progress=stop)
    assert found.was_stopped
    assert len(found.trials) == 2


def test_policies_have_names(tiny_chip, tiny_graph):
    for name, policy in POLICIES.items():
        assert splits(place_by(name, tiny_graph, tiny_chip)) == splits(place(tiny_graph, tiny_chip, policy=policy))
    found = search(tiny_graph, tiny_chip, style="temporal", objective="energy", seed=3)
    assert splits(place_by("search:energy", tiny_graph, tiny_chip, style="temporal", seed=3)) == splits(found.plan)
    for wrong in ("best", "search:", "search:area"):
        with pytest.raises(ConfigError, match=f"^policy: must be one of least_time, .*, search:edp, got '{wrong}'$"):
            place_by(wrong, tiny_graph, tiny_chip)


def test_what_cannot_be_searched_is_said(tiny_chip, tiny_graph):
    with pytest.raises(ConfigError, match=r"^objective: must be one of latency, energy, edp, got 'area'$"):
        search(tiny_graph, tiny_chip, objective="area")
    with pytest.raises(ConfigError, match=r"^engine: must be one of simulate, estimate, got 'guess'$"):
        search(tiny_graph, tiny_chip, engine="guess")
    with pytest.raises(ConfigError, match=r"^n_trials: must be at least 3, one for each policy, got 2$"):
        search(tiny_graph, tiny_chip, n_trials=2)
    with pytest.raises(MappingError, match="use temporal"):
        search(tiny_graph, variant(tiny_chip, {"n_tiles": 1, "tile.n_rows": 4, "tile.n_columns": 4}), style="spatial")


def test_copies_may_take_the_place_of_cuts_in_one_step():
    offered = [Split(n_chunks, n_copies) for n_chunks in range(1, 33) for n_copies in (1, 2, 4)]
    assert Split(16, 2) in _neighbours(Split(32, 1), offered)
    assert Split(8, 2) in _neighbours(Split(4, 4), offered)
    assert Split(32, 1) not in _neighbours(Split(32, 1), offered)
