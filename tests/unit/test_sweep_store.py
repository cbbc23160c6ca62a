import json
import math
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from imcsim.errors import ConfigError, DataError, OutputError
from imcsim.sweep import lease, storefile
from imcsim.sweep.kept import Columns, find, keys_of, text_of, turned, turned_figures
from imcsim.sweep.points import points_of
from imcsim.sweep.store import Kept, Store

ROOT = Path(__file__).resolve().parents[2]


def key(number):
    return blake2b(b"%d" % number, digest_size=16).digest()


def keys(*numbers):
    return [key(number) for number in numbers]


def add(store, numbers, engine="estimate"):
    figures = [{"latency_ns": number / 3, "energy_pJ": 1e6 * number} for number in numbers]
    store.add(keys(*numbers), figures, [None] * len(figures), [0.1] * len(figures), engine)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path):
    with Store(path, owner="this one") as store:
        yield store


def in_a_process(code, *arguments):
    """Run code in a process of its own."""
    imports = "import sys; from hashlib import blake2b; from pathlib import Path; from imcsim.sweep.store import Store"
    code = f"{imports}\n{code}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env=environment)


# Results


def test_what_was_added_is_known_and_the_rest_is_not(store):
    store.add(
        keys(1, 2), [{"latency_ns": 0.1}, {}], [None, "tile.n_rows: must be even, got 3"], [0.5, 0.25], "estimate"
    )
    assert store.known(keys(1, 2, 3)) == {
        key(1): Kept({"latency_ns": 0.1}, None),
        key(2): Kept({}, "tile.n_rows: must be even, got 3"),
    }


def test_a_result_is_never_changed(store, path):
    add(store, [1])
    store.add(keys(1, 2, 2), [{"latency_ns": 9.0}, {"latency_ns": 2.0}, {"latency_ns": 3.0}], [None] * 3, [0] * 3, "x")
    known = store.known(keys(1, 2))
    assert known[key(1)].figures == {"latency_ns": 1 / 3, "energy_pJ": 1e6}
    assert known[key(2)].figures == {"latency_ns": 2.0}
    assert [len(block.keys()) for block in store.results()] == [1, 1]


@pytest.mark.parametrize(
    "value", [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, 3, np.float64(1 / 3)]
)
def test_a_figure_comes_back_bit_by_bit(store, value):
    store.add(keys(1), [{"latency_ns": value, "edp_pJ_ns": 1.0}], [None], [0.0], "estimate")
    (found,) = store.known(keys(1)).values()
    assert found.figures["latency_ns"].hex() == float(value).hex()
    assert type(found.figures["latency_ns"]) is float
    assert json.loads(next(store.results()).figures_text)["latency_ns"] == [value]


def test_a_figure_that_is_not_a_number_is_none(store):
    store.add(
        keys(1, 2), [{"accuracy": math.nan, "area_um2": 1.0}, {"area_um2": 2.0}], [None] * 2, [0.0] * 2, "execute"
    )
    assert store.known(keys(1)) == {key(1): Kept({"area_um2": 1.0}, None)}


def test_a_message_may_hold_any_text(store):
    message = 'a },{ "quoted"\nline \u00b5m\udcff \0 end'
    store.add(keys(1), [{}], [message], [0.0], "estimate")
    assert store.known(keys(1))[key(1)].message == message


def test_a_key_has_sixteen_bytes(store):
    with pytest.raises(sqlite3.IntegrityError):
        store.add([b"short"], [{}], [None], [0.0], "estimate")
    assert list(store.results()) == []


# Sweeps and tables


def test_a_sweep_is_registered_once(store):
    assert store.begin("a", "text: 1", b"1" * 16) == 1
    assert store.begin("b", "text: 2", b"2" * 16) == 2
    assert store.begin("a", "text: 1", b"1" * 16) == 1
    assert [(sweep.number, sweep.name, sweep.text) for sweep in store.sweeps()] == [
        (1, "a", "text: 1"),
        (2, "b", "text: 2"),
    ]


def test_another_imcsim_begins_the_sweep_anew(store, monkeypatch):
    assert store.begin("a", "text", b"1" * 16) == 1
    monkeypatch.setattr("imcsim.sweep.store.__version__", "9.9")
    assert store.begin("a", "text", b"1" * 16) == 2
    assert [sweep.version for sweep in store.sweeps()][1] == "9.9"


ROWS = [
    {"n_tiles": 4, "tile.serial": "trits"},
    {"n_tiles": 8, "mapping.batch": 2.5},
    {"n_tiles": 16, "tile.serial": "bits", "is_on": True},
]


def test_a_table_holds_the_points_with_the_figures_of_their_last_stages(store):
    sweep = store.begin("a", "text", b"1" * 16)
    store.place(sweep, 0, [2, 0, 1], keys(12, 10, 11), [ROWS[2], ROWS[0], ROWS[1]])
    store.place(sweep, 1, [0, 2], keys(20, 22), [ROWS[0], ROWS[2]])
    store.add(keys(10), [{"latency_ns": 1.0, "energy_pJ": 5.0}], [None], [0.0], "estimate")
    store.add(keys(12), [{"latency_ns": 3.0}], [None], [0.0], "estimate")
    store.add(keys(20), [{"latency_ns": 2.0}], [None], [0.0], "simulate")
    store.add(keys(22), [{}], ["main_memory: too small"], [0.0], "simulate")
    add(store, range(100, 300))  # another sweep's
    table = store.table(sweep)
    assert list(table.points.rows()) == ROWS
    assert table.points.numbers.tolist() == [0, 1, 2]
    assert table.placed.tolist() == [1, 0, 1]
    assert table.stages.tolist() == [1, -1, 1]
    assert {name: repr(values.tolist()) for name, values in table.figures.items()} == {
        "energy_pJ": "[5.0, nan, nan]",
        "latency_ns": "[2.0, nan, 3.0]",
    }
    assert table.engines.tolist() == ["simulate", None, "estimate"]
    assert table.messages.tolist() == [None, None, "main_memory: too small"]


def test_a_sweep_without_points_is_an_empty_table(store):
    table = store.table(store.begin("a", "text", b"1" * 16))
    assert len(table.points) == 0
    assert table.figures == {}


def test_placing_again_writes_nothing(store):
    sweep = store.begin("a", "text", b"1" * 16)
    for _ in range(2):
        store.place(sweep, 0, np.arange(3), keys(10, 11, 12), ROWS)
    store.place(sweep, 0, [1], keys(11), [ROWS[1]])
    store.place(sweep, 1, [1], keys(21), [ROWS[1]])
    store.place(sweep, 1, [], [], [])
    counts = [store._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("points", "places")]
    assert counts == [1, 2]


def test_of_the_keys_of_a_point_the_last_word_counts(store, path):
    sweep = store.begin("a", "text", b"1" * 16)
    store.place(sweep, 0, [0, 1, 2], keys(10, 11, 12), ROWS)
    add(store, [10, 31])
    with Store(path) as other:
        other.place(sweep, 0, [1], keys(31), [{"n_tiles": 9}])
    table = store.table(sweep)
    assert list(table.points.rows()) == [ROWS[0], {"n_tiles": 9}, ROWS[2]]
    assert table.stages.tolist() == [0, 0, -1]
    store.place(sweep, 0, [1], keys(11), [ROWS[1]])  # this one has read what the other wrote
    assert store.table(sweep).stages.tolist() == [0, -1, -1]


def test_columns_are_those_of_the_points(store):
    rows = [{"a": 1, "b": 2.0, "c": "x", "d": True}] * 100 + [{"a": 2.5, "b": 2.0, "c": 1, "d": False, "e": 7}]
    sweep = store.begin("a", "text", b"1" * 16)
    store.place(sweep, 0, range(101), keys(*range(101)), rows)
    found, wanted = store.table(sweep).points, points_of(rows)
    assert {name: values.dtype for name, values in found.columns.items()} == {
        name: values.dtype for name, values in wanted.columns.items()
    }
    assert list(found.rows()) == list(wanted.rows())


def test_columns_that_are_packed_apart_fit_together():
    columns = Columns()
    columns.add(50_000, {"a": [1] * 50_000, "b": ["x"] * 50_000})
    columns.add(50_000, {"a": [0.5] * 50_000, "b": [True] * 50_000, "c": [None, 3] * 25_000})
    columns.add(1, {})
    values, has = columns.joined()
    assert values["a"].dtype == np.float64
    assert values["a"][[0, 50_000]].tolist() == [1.0, 0.5]
    assert values["b"][[0, 50_000]].tolist() == ["x", True]
    assert has["a"].tolist() == [True] * 100_000 + [False]
    assert has["c"].sum() == 25_000
    assert values["c"][has["c"]].tolist() == [3] * 25_000


def test_keys_are_found_among_others_even_where_halves_are_alike():
    among = [b"12345678abcdefgh", b"12345678abcdefgi", b"\0" * 15 + b"1", b"z" * 15 + b"\0"]
    wanted = [among[3], b"12345678abcdefgx", among[1], among[0], b"\xff" * 16]
    assert find(keys_of(b"".join(wanted)), keys_of(b"".join(among))).tolist() == [3, -1, 1, 0, -1]
    assert find(keys_of(b"".join(wanted)), keys_of(b"".join(among[1:]))).tolist() == [2, -1, 0, -1, -1]
    assert find(keys_of(b"".join(wanted)), keys_of(b"")).tolist() == [-1] * 5


def test_rows_as_columns_have_null_for_what_a_row_lacks():
    assert turned([{"a": 1, "b": "x"}, {"a": 2}]) == {"a": [1, 2], "b": ["x", None]}
    assert turned_figures([{"a": 1, "b": math.nan}, {"a": np.float32(0.5)}]) == {"a": [1.0, 0.5], "b": [None, None]}
    assert text_of({"a": [1.0, math.inf, math.nan, None]}) == '{"a":[1.0,1e999,null,null]}'


# Claims


def test_a_claim_is_given_once(store, path):
    assert store.claim(keys(1, 2, 1)) == [True, True, False]
    assert store.claim(keys(2, 3)) == [False, True]
    with Store(path) as other:
        assert other.claim(keys(1, 4)) == [False, True]


def test_a_claim_ends_with_its_result(store):
    sweep = store.begin("a", "text", b"1" * 16)
    store.place(sweep, 0, [0, 1], keys(0, 1), [{}, {}])
    store.claim(keys(0, 1))
    add(store, [0])
    assert store.progress(sweep).stages[0].n_claimed == 1
    assert store.progress(sweep).workers[0].n_claims == 1


def test_what_is_known_is_not_claimed(store):
    assert store.claim(keys(1)) == [True]
    add(store, [1, 2])
    assert store.claim(keys(1, 2)) == [False, False]


def test_a_claim_given_back_can_be_had_again(store, path):
    store.claim(keys(1, 2))
    with Store(path) as other:
        other.release(keys(1))  # not the other's
        assert other.claim(keys(3, 1)) == [True, False]
        other.release(keys(1))
        store.release(keys(1))
        assert other.claim(keys(1, 2)) == [True, False]


def test_claims_end_when_the_store_is_closed(store, path):
    with Store(path) as other:
        other.claim(keys(1))
    assert store.claim(keys(1)) == [True]


def test_claims_of_a_process_that_is_gone_lapse_at_once(store, path):
    child = in_a_process("Store(Path(sys.argv[1])).claim([bytes(16)]); print('claimed', flush=True); input()", path)
    assert child.stdout.readline() == "claimed\n"
    assert store.claim([bytes(16)]) == [False]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close(), child.stderr.close()
    assert store.claim([bytes(16)]) == [True]


def test_claims_of_a_silent_owner_lapse(store, path, monkeypatch):
    with Store(path) as other:
        other.claim(keys(1))
        monkeypatch.setattr("imcsim.sweep.store.LEASE_S", -1.0)  # silent for longer than that already
        assert store.claim(keys(1)) == [True]
        monkeypatch.undo()
        assert other.claim(keys(1, 2)) == [False, True]  # back again, without that claim
        add(other, [1])
        add(store, [1])
        assert len(list(store.results())) == 1


def test_an_owner_is_heard_from_whatever_it_is_at(path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    with Store(path) as store, sqlite3.connect(path) as db:
        store.claim(keys(1))
        first = db.execute("SELECT seen FROM owners").fetchone()[0]
        deadline = time.monotonic() + 20
        while db.execute("SELECT seen FROM owners").fetchone()[0] == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    db.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "imcsim-store-heart"]


def test_the_number_of_a_process_that_is_given_again_is_no_sign_of_life():
    alive = lease.this_owner(None)
    assert alive.started
    now = time.time()
    assert lease.Owner(alive.name, alive.host, alive.pid, alive.started, now).is_alive(now, 30)
    assert not lease.Owner(alive.name, alive.host, alive.pid, "1", now).is_alive(now, 30)
    assert lease.Owner(alive.name, "elsewhere", alive.pid, "1", now).is_alive(now, 30)
    assert not lease.Owner(alive.name, "elsewhere", alive.pid, "1", now - 31).is_alive(now, 30)


def test_two_sweeps_on_one_store_at_once_compute_nothing_twice(store, path):
    code = """
keys = [blake2b(b"%d" % number, digest_size=16).digest() for number in range(600)]
done = 0
with Store(Path(sys.argv[1])) as store:
    print("ready", flush=True)
    input()
    for start in range(0, 600, 7):
        batch = keys[start : start + 7]
        mine = [key for key, is_mine in zip(batch, store.claim(batch)) if is_mine]
        store.add(mine, [{"latency_ns": 1.0}] * len(mine), [None] * len(mine), [0.0] * len(mine), "estimate")
        done += len(mine)
print(done)
"""
    children = [in_a_process(code, path) for _ in range(3)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=120) for child in children]
    assert [error for _, error in outputs] == [""] * 3
    assert sum(int(text) for text, _ in outputs) == 600
    assert len(store.known(keys(*range(600)))) == 600


# Status


def test_the_progress_of_a_sweep_counts_its_points_by_stage(store, path):
    sweep = store.begin("a study", "text", b"1" * 16)
    store.place(sweep, 0, range(5), keys(*range(5)), [{"n_tiles": number} for number in range(5)])
    store.place(sweep, 1, [0], keys(10), [{"n_tiles": 0}])
    add(store, [0, 1, 50])
    store.add(keys(2), [{}], ["no"], [0.0], "estimate")
    store.claim(keys(3))
    with Store(path, read_only=True) as reader:
        progress = reader.progress(sweep)
    assert progress.name == "a study"
    counts = [(s.stage, s.n_points, s.n_known, s.n_failed, s.n_claimed) for s in progress.stages]
    assert counts == [(0, 5, 3, 1, 1), (1, 1, 0, 0, 0)]
    assert [(worker.name, worker.n_claims, worker.is_alive) for worker in progress.workers] == [("this one", 1, True)]
    assert progress.n_last_minute == 3
    with pytest.raises(DataError, match=r"store.sqlite: must hold sweep 7, got none of that number$"):
        store.progress(7)


def test_results_of_more_than_a_minute_ago_are_no_rate(store, monkeypatch):
    sweep = store.begin("a", "text", b"1" * 16)
    store.place(sweep, 0, range(2), keys(0, 1), [{}, {}])
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("imcsim.sweep.store.time.time", lambda: now - 61)
        add(store, [0])
    add(store, [1])
    assert store.progress(sweep).n_last_minute == 1


def test_a_reader_does_not_wait_for_a_writer_nor_hold_it_up(store, path):
    add(store, [1])
    store._db.execute("BEGIN IMMEDIATE")
    with Store(path, read_only=True) as reader:
        assert len(reader.known(keys(1))) == 1
        store._db.execute("COMMIT")
        rows = reader.results()
        next(rows)
        add(store, [2])
    assert len(store.known(keys(1, 2))) == 2


def test_a_reader_writes_nothing(store, path):
    with (
        Store(path, read_only=True) as reader,
        pytest.raises(OutputError, match="must be possible to write, got attempt"),
    ):
        add(reader, [1])
    with pytest.raises(DataError, match=r"none.sqlite: must be the store of a sweep, got no such file$"):
        Store(path.with_name("none.sqlite"), read_only=True)


def without_privileges(code, *arguments):
    """Run code in a process that may not write where others' permissions say so, even if this one is root's."""
    drop = "import os\nif not os.getuid(): os.setgid(65534), os.setuid(65534)\n"
    return in_a_process(drop + code, *arguments).communicate(timeout=60)


@pytest.fixture
def open_folder():
    """A folder that everybody can look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_to_is_read(open_folder):
    with Store(open_folder / "store.sqlite") as store:
        add(store, [1])
    open_folder.chmod(0o555)
    (open_folder / "store.sqlite").chmod(stat.S_IREAD | stat.S_IRGRP | stat.S_IROTH)
    code = "print(len(list(Store(Path(sys.argv[1]), read_only=True).results())))"
    assert without_privileges(code, open_folder / "store.sqlite") == ("1\n", "")
    code = "Store(Path(sys.argv[1])).begin('a', 'b', b'c' * 16)"
    _, error = without_privileges(code, open_folder / "store.sqlite")
    assert error.splitlines()[-1].startswith("imcsim.errors.OutputError: ")
    assert "store.sqlite: must be possible to write, got attempt to write a readonly database" in error


def test_a_store_in_a_folder_that_cannot_be_written_to_is_one_line(open_folder):
    open_folder.chmod(0o555)
    _, error = without_privileges("Store(Path(sys.argv[1]))", open_folder / "store.sqlite")
    assert "store.sqlite: must be possible to write, got Permission denied" in error.splitlines()[-1]
    open_folder.chmod(0o755)
    (open_folder / "file").write_text("")
    with pytest.raises(OutputError, match="must be"):
        Store(open_folder / "file" / "store.sqlite")


def test_a_file_system_without_a_log_is_one_line(path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(  # SQLite's own way to be without shared memory
        "imcsim.sweep.storefile.sqlite3.connect",
        lambda file, **options: connect(f"{Path(file).as_uri()}?vfs=unix-dotfile", uri=True, **options),
    )
    with pytest.raises(
        OutputError, match=r"store.sqlite: must lie where SQLite can keep a write-ahead log, got .*'delete'"
    ):
        Store(path)
    assert list(path.parent.iterdir()) == []


# Full disks


def test_a_full_disk_is_one_line_and_what_was_kept_stays(store):
    add(store, range(100))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(
        OutputError, match=r"store.sqlite: must be possible to write, got database or disk is full; what"
    ):
        add(store, range(100, 2000))
    assert len(store.known(keys(*range(2000)))) == 100
    store._db.execute("PRAGMA max_page_count = 100000")
    add(store, range(100, 2000))
    assert len(store.known(keys(*range(2000)))) == 2000


def test_a_file_that_may_not_grow_is_one_line_and_the_store_goes_on_after(path):
    code = """
import resource, signal
from imcsim.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
digest = lambda number: blake2b(b"%d" % number, digest_size=16).digest()
def add(store, numbers):
    store.add([digest(n) for n in numbers], [{"latency_ns": n / 7} for n in numbers], [None] * len(numbers),
              [0.0] * len(numbers), "estimate")
with Store(Path(sys.argv[1])) as store:
    add(store, range(50))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, resource.RLIM_INFINITY))
    done = 50
    try:
        for start in range(50, 100_000, 50):
            add(store, range(start, start + 50))
            done = start + 50
    except OutputError as error:
        print(str(error).partition(": ")[2].partition(";")[0])
    assert len(store.known([digest(n) for n in range(done + 50)])) == done
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    add(store, range(done, done + 50))
    print(done, len(store.known([digest(n) for n in range(done + 100)])) - done)
"""
    output, error = in_a_process(code, path).communicate(timeout=120)
    assert error == ""
    said, counts = output.splitlines()
    assert said in (
        "must be possible to write, got disk I/O error",
        "must be possible to write, got database or disk is full",
    )
    done, more = map(int, counts.split())
    assert done >= 50
    assert more == 50
    with Store(path) as store:
        assert sum(len(block.keys()) for block in store.results()) == done + 50


# What is no store


def test_another_kind_of_file_is_refused_and_left_alone(path):
    path.write_text("point,latency\n0,1\n" * 10)
    with pytest.raises(
        DataError, match=r"store.sqlite: must be the store of a sweep, got another kind of file; if it once"
    ):
        Store(path)
    assert path.read_text().startswith("point")


def test_a_database_of_another_program_is_refused(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE a(b)")
    db.close()
    with pytest.raises(
        DataError, match=r"store.sqlite: must be the store of a sweep, got an SQLite file of another program$"
    ):
        Store(path)


def test_a_store_of_another_format_is_refused(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(storefile, "FORMAT", 7)
        patch.setattr(storefile, "__version__", "3.2.1")
        Store(path).close()
    message = (
        r"store.sqlite: must be a store of format 1, got format 7 \(imcsim 3.2.1\); "
        r"go on with that version of imcsim, or give another --out$"
    )
    with pytest.raises(DataError, match=message):
        Store(path)
    with pytest.raises(DataError, match=message):
        Store(path, read_only=True)


def test_results_of_another_imcsim_are_fine(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("imcsim.sweep.store.__version__", "9.9")
        with Store(path) as store:
            add(store, [1])
    with Store(path) as store:
        assert len(store.known(keys(1))) == 1
        assert next(store.results()).version == "9.9"


def test_a_locked_store_is_one_line(store, path, monkeypatch):
    monkeypatch.setattr(storefile, "BUSY_S", 0.05)
    with Store(path) as other:
        store._db.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            OutputError, match=r"store.sqlite: must become free within 0.05 s, got database is locked; is"
        ):
            add(other, [1])
        store._db.execute("ROLLBACK")


def test_two_processes_may_make_a_store_at_once(path):
    children = [in_a_process("Store(Path(sys.argv[1])).begin('a', 'b', b'c' * 16)", path) for _ in range(4)]
    assert [child.communicate(timeout=60)[1] for child in children] == [""] * 4
    with Store(path) as store:
        assert len(store.sweeps()) == 1


# Export


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_an_export_holds_every_result(store, tmp_path, suffix):
    store.add(keys(1), [{"latency_ns": 0.1 + 0.2, "energy_pJ": math.inf}], [None], [0.5], "estimate")
    store.add(keys(2), [{}], ['no, "never"'], [0.25], "simulate")
    add(store, range(10, 200))
    store.export(tmp_path / f"all{suffix}")
    if suffix == ".csv":
        import pandas

        frame = pandas.read_csv(tmp_path / "all.csv")
    else:
        frame = pyarrow.parquet.read_table(tmp_path / "all.parquet").to_pandas()
    assert frame.columns.tolist() == ["key", "engine", "version", "seconds", "at", "message", "energy_pJ", "latency_ns"]
    assert frame.key[:3].tolist() == [key(1).hex(), key(2).hex(), key(10).hex()]
    assert frame.latency_ns[0] == 0.1 + 0.2
    assert frame.energy_pJ[0] == math.inf
    assert frame.message[1] == 'no, "never"'
    assert frame[["message", "latency_ns"]].isna().sum().tolist() == [191, 1]
    assert len(frame) == 192


def test_an_export_of_nothing_has_the_columns(store, tmp_path):
    store.export(tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text() == '"key","engine","version","seconds","at","message"\n'


def test_an_export_to_another_kind_of_file_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"all.xlsx: must end in .parquet or .csv, got all.xlsx$"):
        store.export(tmp_path / "all.xlsx")


def test_a_store_alone_brings_in_no_heavy_library(path):
    code = "Store(Path(sys.argv[1])).close(); print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    output, _ = in_a_process(code, path).communicate(timeout=60)
    assert "sqlite3" in output.split()
    assert not set(output.split()) & {"pyarrow", "pandas", "torch", "scipy", "optuna", "dask", "yaml"}
