"""Many processes give what one gives, whatever happens to them on the way."""

import contextlib
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from batches import batches_of, evaluate
from distributed import Client

import imcsim
from imcsim.errors import ClusterError, ConfigError, MappingError
from imcsim.sweep.cluster import join, joined, local_cluster, lost
from imcsim.sweep.local import InProcess
from imcsim.sweep.objectives import COST
from imcsim.sweep.stages import Outcomes

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DASK = [sys.executable, "-m", "distributed.cli.dask_scheduler"], [sys.executable, "-m", "distributed.cli.dask_worker"]
DEAD = "the worker died 3 times while evaluating it; it may need more memory than a worker has"


def table(pairs):
    """What came out, by the points' numbers; nothing twice."""
    found = {}
    for batch, outcomes in pairs:
        columns = [outcomes.figures.get("latency_ns", np.full(len(batch.points), np.nan)).tolist(), outcomes.messages]
        for number, *values in zip(batch.points.numbers.tolist(), *columns, strict=True):
            assert number not in found
            found[number] = tuple(None if value != value else value for value in values)
    return found


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Let every process find imcsim and the batches, and compile what they import once, even if nobody else may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TESTS)]))
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("compiled")))
            subprocess.run(
                [sys.executable, "-c", "import distributed.cli.dask_worker, imcsim.sweep.cluster"], check=True
            )
        yield


@pytest.fixture(scope="module")
def two_workers():
    with local_cluster(2, evaluate) as cluster:
        yield cluster


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def started(*commands, folder, **environment):
    """Processes of Dask's own commands, ended whatever happens."""
    processes = [
        subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def scheduler(folder, scheme="tcp", **environment):
    """A scheduler in a process of its own: its address and its process."""
    port = free_port()
    address = f"{scheme}://127.0.0.1:{port}"
    command = [*DASK[0], "--host", address, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    with started(command, folder=folder, **environment) as [process]:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield address, process


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    with scheduler(tmp_path_factory.mktemp("scheduler")) as found:
        yield found


def until(is_so, seconds=60):
    """Wait for something that other processes do."""
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def worker(address):
    return [*DASK[1], address, "--no-nanny", "--no-dashboard", "--nthreads", "1", "--local-directory", "."]


def test_two_workers_give_the_rows_of_one_process(two_workers):
    rows = [{"x": x} for x in range(990, 1040)]
    alone = table(InProcess(evaluate).run(batches_of(rows, 4)))
    assert alone[0] == (1980.0, None)
    assert alone[49] == (None, "x: must be less than 1000, got more")
    assert table(two_workers.run(batches_of(rows, 4))) == alone
    assert two_workers.n_workers == 2


def test_batches_are_taken_as_workers_become_free(two_workers):
    taken, ended = 0, 0

    def counted():
        nonlocal taken
        for batch in batches_of([{"x": x} for x in range(30)], 1):
            taken += 1
            yield batch

    for _ in two_workers.run(counted()):
        assert taken - ended <= 4
        ended += 1
    assert ended == 30


def test_nothing_is_lost_or_doubled_when_a_worker_is_killed(two_workers):
    rows = [{"x": x, "sleep_s": 0.05} for x in range(40)]
    pairs = []
    for pair in two_workers.run(batches_of(rows, 2)):
        pairs.append(pair)
        if len(pairs) == 4:
            victims = [
                process for process in psutil.Process().children() if "spawn_main" in " ".join(process.cmdline())
            ]
            assert len(victims) == 2
            victims[0].kill()
    assert table(pairs) == {x: (2.0 * x, None) for x in range(40)}


def test_a_point_that_ends_its_worker_is_a_failed_point(two_workers):
    rows = [{"x": x, "kills": x == 5} for x in range(12)]
    found = table(two_workers.run(batches_of(rows, 3)))
    assert found == {x: (None, DEAD) if x == 5 else (2.0 * x, None) for x in range(12)}


def test_what_spoils_a_batch_arrives_with_its_message(two_workers):
    rows = [{"x": x, "spoils": x == 3} for x in range(8)]
    with pytest.raises(MappingError, match=r"^x: must fit, got a point that spoils its batch$"):
        list(two_workers.run(batches_of(rows, 2)))
    assert table(two_workers.run(batches_of(rows[:2], 2))) == {0: (0.0, None), 1: (2.0, None)}


def test_workers_of_this_machine_listen_on_it_alone(two_workers):
    until(lambda: two_workers.n_workers == 2)  # those that were killed before come back
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    hosts = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert hosts == {"127.0.0.1"}


def test_less_than_one_worker_is_refused():
    with (
        pytest.raises(ConfigError, match=r"^--workers: must be at least 1, got 0$"),
        local_cluster(0, evaluate),
    ):
        pass


def test_workers_that_do_not_start_are_one_line(monkeypatch):
    def no_process(**options):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("imcsim.sweep.cluster.LocalCluster", no_process)
    expected = r"^--workers 3: worker processes must start, got '\[Errno 11\] Resource temporarily unavailable'$"
    with pytest.raises(ClusterError, match=expected), local_cluster(3, evaluate):
        pass


def test_a_cluster_that_is_there_is_joined_and_outlived(there, tmp_path):
    address, process = there
    rows = [{"x": x, "sleep_s": 0.02} for x in range(40)]
    with started(*[worker(address)] * 2, folder=tmp_path) as workers:
        with join(address, evaluate, wait_s=60) as cluster:
            until(lambda: cluster.n_workers == 2)
            pairs = []
            for pair in cluster.run(batches_of(rows, 2)):
                pairs.append(pair)
                if len(pairs) == 4:
                    workers[0].kill()
            assert table(pairs) == {x: (2.0 * x, None) for x in range(40)}
            assert cluster.n_workers == 1
        assert process.poll() is workers[1].poll() is None
        with join(address, evaluate, wait_s=1.2) as cluster:
            gone = (
                rf"^scheduler {address}: must have a worker, got none for 1 s; start workers \(dask worker {address} "
            )
            with pytest.raises(ClusterError, match=gone):  # noqa: PT012
                for i, _ in enumerate(cluster.run(batches_of(rows, 2))):
                    if i == 3:
                        workers[1].kill()
    with (
        pytest.raises(ClusterError, match=r": must have a worker, got none for 0 s; start workers"),
        join(address, evaluate, wait_s=0.3),
    ):
        pass


def test_workers_with_another_imcsim_or_none_are_named(there, tmp_path):
    """Both are started; the one that is named first is ended, and then it is the other's turn."""
    expected = {
        '__version__ = "0.0.7"': rf"must have imcsim {imcsim.__version__}, as this process has, got 0\.0\.7$",
        "import a_library": rf"must have imcsim {imcsim.__version__}, got ModuleNotFoundError: No module named "
        r"'a_library'; install it in the environment that workers run in$",
    }
    address, _ = there
    with contextlib.ExitStack() as stack:
        for i, source in enumerate(expected):
            (tmp_path / f"{i}/imcsim").mkdir(parents=True)
            (tmp_path / f"{i}/imcsim/__init__.py").touch()
            (tmp_path / f"{i}/imcsim/version.py").write_text(source)
            stack.enter_context(started(worker(address), folder=tmp_path, PYTHONPATH=str(tmp_path / f"{i}")))
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            for left in (1, 0):
                with (
                    pytest.raises(ClusterError, match=r"^worker tcp://127\.0\.0\.1:\d+: ") as caught,
                    join(address, evaluate),
                ):
                    pass
                name, message = re.match(r"worker (\S+): (.*)", str(caught.value)).groups()
                [source] = [source for source, pattern in expected.items() if re.match(pattern, message)]
                del expected[source]
                client.retire_workers([name], close_workers=True)
                until(lambda n=left: len(client.nthreads()) == n)


def test_a_scheduler_that_goes_is_one_line(there, tmp_path):
    address, process = there
    rows = [{"x": x, "sleep_s": 0.02} for x in range(40)]
    with started(worker(address), folder=tmp_path), join(address, evaluate) as cluster:
        gone = (
            rf"^scheduler {address}: must be there until the sweep ends, got no answer any more; what is stored stays"
        )
        with pytest.raises(ClusterError, match=gone):  # noqa: PT012
            for i, _ in enumerate(cluster.run(batches_of(rows, 2))):
                if i == 3:
                    process.kill()


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:{port}", "nonsense", "udp://127.0.0.1:1", "tls://127.0.0.1:{port}"]
)
def test_a_scheduler_that_does_not_answer_is_one_line(address, monkeypatch):
    monkeypatch.setattr("imcsim.sweep.cluster.CONNECT_S", 1.0)
    address = address.format(port=free_port())
    expected = (
        rf"^--scheduler {address}: must be the address of a Dask scheduler that answers within 1 s, such as tcp://"
    )
    with pytest.raises(ClusterError, match=expected), join(address, evaluate):
        pass


def test_a_client_that_found_no_scheduler_is_gone_at_once(monkeypatch):
    """Collected later, inside of the next client, it would wait for a lock that this one holds."""
    monkeypatch.setattr("imcsim.sweep.cluster.CONNECT_S", 0.2)
    with pytest.raises(ClusterError) as caught, join(f"tcp://127.0.0.1:{free_port()}", evaluate):
        pass
    assert caught.value.__context__ is None
    assert not [found for found in gc.get_objects() if isinstance(found, Client) and found.status == "connecting"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_a_cluster_with_certificates_is_joined(tmp_path):
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=imcsim"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    files = {"ca-file": cert}
    files |= {
        f"{who}.{what}": path
        for who in ("scheduler", "worker", "client")
        for what, path in (("key", key), ("cert", cert))
    }
    environment = {
        f"DASK_DISTRIBUTED__COMM__TLS__{name.replace('.', '__').replace('-', '_').upper()}": path
        for name, path in files.items()
    }
    settings = {f"distributed.comm.tls.{name}": path for name, path in files.items()}
    rows = [{"x": x} for x in range(6)]
    with (
        scheduler(tmp_path, "tls", **environment) as (address, _),
        started(worker(address), folder=tmp_path, **environment),
    ):
        with dask.config.set(settings), join(address, evaluate) as cluster:
            assert table(cluster.run(batches_of(rows, 2))) == {x: (2.0 * x, None) for x in range(6)}
        with pytest.raises(ClusterError, match=rf"^--scheduler {address}: .*got"), join(address, evaluate):
            pass


SWEEP = """
import sys
from batches import batches_of, evaluate
from imcsim.errors import ImcsimError
from imcsim.sweep.cluster import local_cluster

if __name__ == "__main__":
    with local_cluster(int(sys.argv[1]), evaluate) as cluster:
        for batch, _ in cluster.run(batches_of([{"x": x, "sleep_s": 60 * (x > 3)} for x in range(100)], 1)):
            print(batch.points.numbers[0], flush=True)
"""


@pytest.mark.parametrize(("how", "n_workers"), [(signal.SIGINT, 2), (signal.SIGKILL, 1)])
def test_no_process_is_left_behind(how, n_workers, tmp_path):
    (tmp_path / "sweep.py").write_text(SWEEP)
    process = subprocess.Popen([sys.executable, "sweep.py", str(n_workers)], cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    for _ in range(4):
        assert process.stdout.readline()
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) == n_workers + 1  # and the tracker of multiprocessing
    start = time.monotonic()
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: the workers get it too
    else:
        process.kill()
    error = process.communicate(timeout=20)[1]
    assert psutil.wait_procs(others, timeout=10)[1] == []
    assert time.monotonic() - start < 10
    assert process.returncode == -how
    assert error.count("Traceback") == (how == signal.SIGINT)  # of the script, which catches nothing; none of a worker
    assert ("KeyboardInterrupt" in error.splitlines()) == (how == signal.SIGINT)
    assert "leaked" not in error


def test_a_point_that_is_lost_has_every_figure_of_its_engine_missing():
    [batch] = batches_of([{"x": 1}], 1)
    found = lost(batch, 3)
    assert set(found.figures) == COST
    assert np.isnan(list(found.figures.values())).all()
    assert found.messages == (DEAD,)


def test_outcomes_of_parts_are_joined_with_gaps():
    parts = [
        Outcomes({"latency_ns": np.array([1.0]), "area_um2": np.array([2.0])}, (None,), 1.0),
        Outcomes({}, (DEAD,), 0.0),
        Outcomes({"latency_ns": np.array([3.0])}, (None,), 0.5),
    ]
    whole = joined(parts)
    assert whole.messages == (None, DEAD, None)
    assert whole.seconds == 1.5
    np.testing.assert_array_equal(whole.figures["latency_ns"], [1, np.nan, 3])
    np.testing.assert_array_equal(whole.figures["area_um2"], [2, np.nan, np.nan])
