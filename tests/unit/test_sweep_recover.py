import json
import math
import os
import random
import shutil
from hashlib import blake2b

import numpy as np
import pytest

from imcsim.errors import DataError, ImcsimError, OutputError
from imcsim.sweep.recover import put_in_place, recover
from imcsim.sweep.store import Kept, Store
from imcsim.sweep.storefile import PAGE_BYTES

N = 3000


def key(number):
    return blake2b(b"%d" % number, digest_size=16).digest()


def figures_of(number):
    return {"latency_ns": number / 7, "energy_pJ": math.inf if number == 5 else number * 1e9}


def message_of(number):
    if number % 100:
        return None
    return f"tile.n_rows: must be even, got {number}" + "!" * (9000 if number in (200, 2500) else 0)


EVERYTHING = {
    key(number): Kept({} if message_of(number) else figures_of(number), message_of(number)) for number in range(N)
}


def fill(path, numbers=range(N)):
    with Store(path) as store:
        sweep = store.begin("a study", "parameters: {}\n" * 1000, b"1" * 16)
        for start in range(0, len(numbers), 100):
            batch = numbers[start : start + 100]
            keys = [key(number) for number in batch]
            store.place(sweep, 0, batch, keys, [{"n_tiles": number, "mapping.policy": "µ"} for number in batch])
            figures = [{} if message_of(number) else figures_of(number) for number in batch]
            store.add(keys, figures, [message_of(number) for number in batch], [0.5] * len(batch), "estimate")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    path = tmp_path_factory.mktemp("full") / "store.sqlite"
    fill(path)
    return path


@pytest.fixture
def path(full, tmp_path):
    return shutil.copy(full, tmp_path / "store.sqlite")


def known(path):
    with Store(path) as store:
        return store.known(list(EVERYTHING))


def damage(path, change):
    """Change the bytes of a file, and return how they are then."""
    content = bytearray(path.read_bytes())
    content = change(content) or content
    path.write_bytes(content)
    return bytes(content)


def test_all_is_recovered_of_a_store_that_is_whole(path):
    before = path.read_bytes()
    found = recover(path)
    assert (found.n_results, found.n_from_exports, found.n_sweeps, found.n_points) == (N, 0, 1, N)
    assert found.path == path.with_name("store-recovered.sqlite")
    assert path.read_bytes() == before
    assert known(found.path) == EVERYTHING
    with Store(path) as old, Store(found.path) as new:
        assert new.sweeps() == old.sweeps()
        assert list(new.table(1).points.rows()) == list(old.table(1).points.rows())
        assert new.table(1).figures["latency_ns"].tobytes() == old.table(1).figures["latency_ns"].tobytes()
        assert [block.at for block in new.results()] == [block.at for block in old.results()]


@pytest.mark.parametrize("seed", range(5))
def test_pages_of_random_bytes_take_only_their_own_rows_with_them(path, seed):
    rng = random.Random(seed)

    def change(content):
        for page in rng.sample(range(len(content) // PAGE_BYTES), 5):
            content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = rng.randbytes(PAGE_BYTES)

    content = damage(path, change)
    found = recover(path)
    assert path.read_bytes() == content
    kept = known(found.path)
    assert kept.items() <= EVERYTHING.items()
    assert N - 5 * 2 * 64 <= len(kept) == found.n_results <= N
    with Store(found.path) as store:
        assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_store_never_gives_wrong_figures(path, seed):
    rng = random.Random(seed)

    def change(content):
        for _ in range(40):
            content[rng.randrange(PAGE_BYTES, len(content))] = rng.randrange(256)

    damage(path, change)
    try:
        with Store(path) as store:
            for one in EVERYTHING:
                try:
                    kept = store.known([one])
                except DataError as error:
                    assert str(error).startswith(f"{path}: must be a whole store, got ")  # noqa: PT017
                else:
                    assert kept.items() <= EVERYTHING.items()
    except DataError as error:
        assert "recover" in str(error)  # noqa: PT017
    assert known(recover(path).path).items() <= EVERYTHING.items()


def test_a_changed_digit_is_noticed(path):
    damage(path, lambda content: content.replace(repr(1 / 7).encode(), repr(1 / 7).replace("4", "5").encode(), 1))
    message = rf"{path}: must be a whole store, got a wrong checksum in results; it was damaged: 'imcsim sweep recover "
    with Store(path) as store:
        with pytest.raises(DataError, match=message):
            store.known([key(1)])
        with pytest.raises(DataError, match=message):
            store.table(1)
        with pytest.raises(DataError, match=message):
            store.export(path.with_name("all.csv"))
        assert store.known([key(2999)]) == {key(2999): EVERYTHING[key(2999)]}
    assert N - 64 <= recover(path).n_results < N


def test_half_a_file_gives_what_that_half_holds(path):
    size = path.stat().st_size
    damage(path, lambda content: content[: len(content) // 2 + 77])
    with pytest.raises(
        DataError, match=rf"store.sqlite: must be a whole store, got \d+ of {size} bytes; it was damaged"
    ):
        Store(path)
    found = recover(path)
    assert N // 4 < found.n_results < N
    assert known(found.path).items() <= EVERYTHING.items()


@pytest.mark.parametrize(
    ("n_bytes", "message"),
    [
        (100, "must be a whole store, got an empty header; it was damaged: 'imcsim sweep recover "),
        (16, "must be the store of a sweep, got another kind of file; if it once was one, 'imcsim sweep recover "),
    ],
)
def test_nothing_is_lost_with_the_header(path, n_bytes, message):
    damage(path, lambda content: bytes(n_bytes) + content[n_bytes:])
    for read_only in (False, True):
        with pytest.raises(DataError, match=message):
            Store(path, read_only=read_only)
    found = recover(path)
    assert known(found.path) == EVERYTHING
    assert found.n_points == N


def test_a_first_page_of_random_bytes_is_one_line(path):
    damage(path, lambda content: content[:100] + random.Random(1).randbytes(PAGE_BYTES - 100) + content[PAGE_BYTES:])
    with pytest.raises(DataError, match=r"store.sqlite: must be a whole store, got .*'imcsim sweep recover "):
        Store(path)
    assert recover(path).n_results == N


def test_an_emptied_file_is_one_line_and_left_alone(path):
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"store.sqlite: must be a whole store, got an empty file; it was damaged"):
        Store(path)
    with pytest.raises(
        DataError, match=r"store.sqlite: must hold results that can be read, got none; it is left as it is$"
    ):
        recover(path)
    assert [file.name for file in path.parent.iterdir()] == ["store.sqlite"]
    with pytest.raises(DataError, match=r"none.sqlite: must be the store of a sweep, got no such file$"):
        recover(path.with_name("none.sqlite"))


# With a log


@pytest.fixture
def logged(full, tmp_path):
    """A store as a killed process leaves it: the first half in the file, the second in the log."""
    live = tmp_path / "live" / "store.sqlite"
    live.parent.mkdir()
    fill(live, range(N // 2))
    with Store(live) as store:
        store._db.execute("PRAGMA wal_autocheckpoint = 0")
        for start in range(N // 2, N, 50):
            batch = range(start, start + 50)
            figures = [{} if message_of(number) else figures_of(number) for number in batch]
            messages = [message_of(number) for number in batch]
            store.add([key(number) for number in batch], figures, messages, [0.5] * 50, "estimate")
        path = tmp_path / "store.sqlite"
        for suffix in ("", "-wal"):
            shutil.copy(live.with_name(live.name + suffix), path.with_name(path.name + suffix))
    return path


def test_what_is_in_the_log_only_is_there(logged):
    assert logged.with_name("store.sqlite-wal").stat().st_size
    shutil.copy(logged, logged.with_name("copy.sqlite"))
    shutil.copy(logged.with_name("store.sqlite-wal"), logged.with_name("copy.sqlite-wal"))
    assert known(logged.with_name("copy.sqlite")) == EVERYTHING
    assert known(recover(logged).path) == EVERYTHING


def test_without_its_log_a_store_is_as_it_was_before(logged):
    logged.with_name("store.sqlite-wal").unlink()
    assert set(known(logged)) == {key(number) for number in range(N // 2)}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_log_gives_whole_batches_only(logged, share):
    log = logged.with_name("store.sqlite-wal")
    os.truncate(log, int(log.stat().st_size * share))
    saved = recover(logged)
    kept = set(known(logged))
    assert kept == {key(number) for number in range(len(kept))}
    assert len(kept) % 50 == 0
    assert N // 2 < len(kept) < N
    assert kept <= set(known(saved.path))


def test_a_log_without_its_store_is_not_overwritten(logged):
    logged.unlink()
    log = logged.with_name("store.sqlite-wal")
    content = log.read_bytes()
    with pytest.raises(
        DataError, match=r"store.sqlite: must be there, for store.sqlite-wal is, got no such file; 'imcsim"
    ):
        Store(logged)
    found = recover(logged)
    assert {key(number) for number in range(N // 2 + 100, N)} <= set(known(found.path))
    assert log.read_bytes() == content


# What is beside it


def test_what_a_store_lost_its_export_may_have(path):
    with Store(path) as store:
        store.export(path.with_name("results.parquet"))
    path.with_name("broken.parquet").write_bytes(path.with_name("results.parquet").read_bytes()[:5000])
    damage(path, lambda content: content[: len(content) // 2])
    found = recover(path)
    assert found.n_results == N
    assert 0 < found.n_from_exports < N
    assert known(found.path) == EVERYTHING


def test_what_was_recovered_takes_the_place_of_the_damaged(logged):
    content, log = logged.read_bytes(), logged.with_name("store.sqlite-wal").read_bytes()
    found = recover(logged)
    again = recover(logged)
    assert again.path.name == "store-recovered-2.sqlite"
    aside = put_in_place(found, logged)
    assert aside.name == "store-damaged.sqlite"
    assert aside.read_bytes() == content
    assert aside.with_name("store-damaged.sqlite-wal").read_bytes() == log
    assert known(logged) == EVERYTHING
    assert not found.path.exists()


def test_a_sweep_goes_on_after_its_store_was_recovered(path):
    damage(path, lambda content: content[: len(content) // 2])
    with Store(recover(path).path) as store:
        sweep = store.begin("a study", "parameters: {}\n" * 1000, b"1" * 16)
        keys = [key(number) for number in range(N)]
        store.place(sweep, 0, range(N), keys, [{"n_tiles": number, "mapping.policy": "µ"} for number in range(N)])
        ours = [number for number, is_ours in enumerate(store.claim(keys)) if is_ours]
        assert 0 < len(ours) < N
        figures = [{} if message_of(number) else figures_of(number) for number in ours]
        messages = [message_of(number) for number in ours]
        store.add([key(number) for number in ours], figures, messages, [0.0] * len(ours), "estimate")
        assert store.known(keys) == EVERYTHING
        assert store.table(sweep).points.columns["n_tiles"].tolist() == list(range(N))
        assert (store.table(sweep).stages == 0).all()


def test_points_without_parameters_wait_until_they_are_placed_again(path):
    with Store(path) as store:
        store._db.execute("DELETE FROM points WHERE id < 10 OR id > 30")
        numbers = [number for block in store._rows("points", "") for number in json.loads(block[2])]
        table = store.table(1)
        assert table.points.numbers.tolist() == table.points.columns["n_tiles"].tolist() == numbers
        is_known = np.array([message_of(number) is None for number in numbers])
        assert table.figures["latency_ns"][is_known].tolist() == [n / 7 for n in numbers if message_of(n) is None]


def test_a_new_store_that_cannot_be_written_is_one_line(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imcsim.sweep.recover.publish", full)
    with pytest.raises(OutputError, match=r": must be possible to write, got No space left on device$") as caught:
        recover(path)
    assert isinstance(caught.value, ImcsimError)
    assert [file.name for file in path.parent.iterdir()] == ["store.sqlite"]
