"""Whatever is added, claimed, placed, closed and opened in whatever order: a store keeps what was added first."""

import math
import shutil
import tempfile
from hashlib import blake2b
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from imcsim.sweep.kept import BLOCK_ROWS
from imcsim.sweep.points import points_of
from imcsim.sweep.recover import recover
from imcsim.sweep.store import Kept, Store

NUMBERS = st.integers(0, 7)
FIGURES = st.dictionaries(st.sampled_from(["latency_ns", "energy_pJ", "accuracy"]), st.floats(), max_size=3)
MESSAGES = st.none() | st.text(st.characters(codec=None), max_size=30)
VALUES = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=5)


def key(number):
    return blake2b(b"%d" % number, digest_size=16).digest()


def kept(figures, message):
    return Kept({name: value for name, value in figures.items() if not math.isnan(value)}, message)


class Stores(RuleBasedStateMachine):
    """Two owners on one store, and what it must hold."""

    @initialize()
    def open_both(self):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "store.sqlite"
        self.stores = [Store(self.path), Store(self.path)]
        self.known = {}
        self.claims = {}
        self.places = {}
        for store in self.stores:
            assert store.begin("a", "text", b"1" * 16) == 1

    def teardown(self):
        if hasattr(self, "folder"):
            for store in self.stores:
                store.close()
            shutil.rmtree(self.folder)

    @rule(who=st.integers(0, 1), results=st.lists(st.tuples(NUMBERS, FIGURES, MESSAGES), max_size=5))
    def add(self, who, results):
        numbers, figures, messages = zip(*results, strict=True) if results else ((), (), ())
        keys = [key(number) for number in numbers]
        self.stores[who].add(keys, figures, messages, [0.0] * len(keys), "estimate")
        for number, of_point, message in results:
            self.known.setdefault(number, kept(of_point, message))
            self.claims.pop(number, None)

    @rule(who=st.integers(0, 1), numbers=st.lists(NUMBERS, max_size=8))
    def claim(self, who, numbers):
        given = self.stores[who].claim([key(number) for number in numbers])
        for number, is_ours in zip(numbers, given, strict=True):
            assert is_ours == (number not in self.known and number not in self.claims)
            if is_ours:
                self.claims[number] = who

    @rule(who=st.integers(0, 1), numbers=st.lists(NUMBERS, max_size=8))
    def release(self, who, numbers):
        self.stores[who].release([key(number) for number in numbers])
        for number in numbers:
            if self.claims.get(number) == who:
                del self.claims[number]

    @rule(who=st.integers(0, 1), stage=st.integers(0, 2), keys=st.dictionaries(st.integers(0, 5), NUMBERS, max_size=5))
    def place(self, who, stage, keys):
        rows = [{"n_tiles": number} for number in keys]
        self.stores[who].place(1, stage, list(keys), [key(number) for number in keys.values()], rows)
        self.places.update({(stage, point): number for point, number in keys.items()})

    @rule(who=st.integers(0, 1))
    def reopen(self, who):
        self.stores[who].close()
        self.claims = {number: owner for number, owner in self.claims.items() if owner != who}
        self.stores[who] = Store(self.path)

    @precondition(lambda self: self.known)
    @rule()
    def recover(self):
        for copy in self.folder.glob("store-recovered*"):
            copy.unlink()
        found = recover(self.path)
        with Store(found.path) as store:
            assert store.known(list(map(key, range(8)))) == {key(number): row for number, row in self.known.items()}

    @invariant()
    def holds_what_was_added(self):
        for store in getattr(self, "stores", ()):
            assert store.known(list(map(key, range(8)))) == {key(number): row for number, row in self.known.items()}

    @invariant()
    def shows_it_point_by_point(self):
        if not hasattr(self, "stores"):
            return
        table = self.stores[0].table(1)
        assert table.points.numbers.tolist() == sorted({point for _, point in self.places})
        for at, point in enumerate(table.points.numbers.tolist()):
            assert table.points.row(at) == {"n_tiles": point}
            stages = sorted(stage for stage, other in self.places if other == point)
            results = [self.known.get(self.places[stage, point]) for stage in stages]
            figures = {}
            for result in results:
                figures |= result.figures if result else {}
            with_result = [stage for stage, result in zip(stages, results, strict=True) if result]
            assert table.placed[at] == stages[-1]
            assert table.stages[at] == (with_result[-1] if with_result else -1)
            assert {name: v[at] for name, v in table.figures.items() if not math.isnan(v[at])} == figures
            assert table.messages[at] == ([result for result in results if result][-1].message if with_result else None)

    @invariant()
    def counts_what_it_has(self):
        if not hasattr(self, "stores"):
            return
        with Store(self.path, read_only=True) as reader:
            for counts in reader.progress(1).stages:
                numbers = [number for (stage, _), number in self.places.items() if stage == counts.stage]
                assert counts.n_points == len(numbers)
                assert counts.n_known == sum(number in self.known for number in numbers)
                failed = [
                    number for number in numbers if number in self.known and self.known[number].message is not None
                ]
                assert counts.n_failed == len(failed)
                assert counts.n_claimed == sum(number in self.claims for number in numbers)


Stores.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestStores = Stores.TestCase


@settings(max_examples=25)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), max_size=2 * BLOCK_ROWS + 3),
    repeat=st.integers(1, 5),
)
def test_points_come_back_as_they_were(rows, repeat):
    rows = rows * repeat
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
        sweep = store.begin("a", "text", b"1" * 16)
        store.place(sweep, 0, range(len(rows)), [key(number) for number in range(len(rows))], rows)
        found = store.table(sweep).points
    wanted = points_of(rows)
    assert list(map(repr, found.rows())) == list(map(repr, wanted.rows()))
    assert {name: (v.dtype, v.tolist()) for name, v in found.has.items()} == {
        name: (v.dtype, v.tolist()) for name, v in wanted.has.items()
    }
    assert {name: v.dtype for name, v in found.columns.items()} == {name: v.dtype for name, v in wanted.columns.items()}
