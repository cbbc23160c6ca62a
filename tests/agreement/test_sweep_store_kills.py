"""A store against processes that are killed in the middle: whole batches or nothing, and nothing computed twice."""

import os
import random
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path

import pytest

from imcsim.sweep.store import Store
from imcsim.sweep.tables import split

ROOT = Path(__file__).resolve().parents[2]
BATCH = 150
"""Results of a batch: more than one block, so that half a batch could be seen."""

WRITER = f"""
import sys
from hashlib import blake2b
from pathlib import Path
from imcsim.sweep.store import Store

def key(number):
    return blake2b(b"%d" % number, digest_size=16).digest()

with Store(Path(sys.argv[1])) as store:
    sweep = store.begin("a", "text", b"1" * 16)
    print("ready", flush=True)
    batch = 0
    while True:
        numbers = range(batch * {BATCH}, (batch + 1) * {BATCH})
        keys = [key(number) for number in numbers]
        store.place(sweep, 0, numbers, keys, [{{"n_tiles": number}} for number in numbers])
        mine = [number for number, is_mine in zip(numbers, store.claim(keys)) if is_mine]
        store.add([key(number) for number in mine], [{{"latency_ns": number / 3}} for number in mine],
                  [None] * len(mine), [0.0] * len(mine), "estimate")
        if mine:
            print(batch, flush=True)
        batch += 1
"""


def key(number):
    return blake2b(b"%d" % number, digest_size=16).digest()


def start(path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout.readline() == "ready\n"
    return child


def batches_of(path):
    """The batches that a store has; fails where it has part of one."""
    with Store(path) as store:
        assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        known = {one for block in store.results() for one in split(block.content)}
        batches = [batch for batch in range(len(known) // BATCH + 1) if key(batch * BATCH) in known]
        expected = {key(number) for batch in batches for number in range(batch * BATCH, (batch + 1) * BATCH)}
        assert known == expected
        assert [store.known([one])[one].figures for one in (key(0),) if one in known] in ([], [{"latency_ns": 0.0}])
    return batches


@pytest.mark.parametrize("times", [8])
def test_a_process_that_is_killed_leaves_whole_batches_and_the_next_goes_on(tmp_path, times):
    path, rng, said = tmp_path / "store.sqlite", random.Random(7), set()
    for _ in range(times):
        child = start(path)
        time.sleep(rng.uniform(0.0, 0.4))
        child.kill()
        output, _ = child.communicate()
        lines = [int(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]
        assert said.isdisjoint(lines)  # nothing that an earlier process kept was computed again
        said.update(lines)
        found = batches_of(path)
        assert said <= set(found)  # what was said to be kept is
        assert found == list(range(len(found)))
        said = set(found)
    assert len(said) > times
    with Store(path) as store:
        table = store.table(1)
    n = len(said) * BATCH
    assert table.points.numbers[:n].tolist() == list(range(n))
    assert table.figures["latency_ns"][:n].tolist() == [number / 3 for number in range(n)]


def test_of_two_processes_at_once_each_does_its_own_and_what_the_dead_had_claimed_is_free(tmp_path):
    path = tmp_path / "store.sqlite"
    Store(path).close()
    children = [start(path), start(path)]
    time.sleep(0.5)
    for child in children:
        child.kill()
    first, second = ({int(line) for line in child.communicate()[0].split("\n")[:-1]} for child in children)
    assert first.isdisjoint(second)
    with Store(path) as store:
        rows = [one for block in store.results() for one in split(block.content)]
        assert len(rows) == len(set(rows))
        assert {key(batch * BATCH) for batch in first | second} <= set(rows)
        claimed = {one for (one,) in store._db.execute("SELECT key FROM claims")}
        assert claimed.isdisjoint(rows)
        everything = [key(number) for number in range(len(rows) + 10 * BATCH)]
        there = set(rows)
        assert store.claim(everything) == [one not in there for one in everything]
