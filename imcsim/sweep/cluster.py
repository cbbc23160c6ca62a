"""Batches on many processes, by Dask: workers of this machine (`local_cluster`), or a cluster that is there (`join`).

A batch is evaluated by one worker; at most `N_UNDER_WAY` batches a worker are under way. Where a worker dies, its
batches are done again by others, as often as the scheduler allows (``distributed.scheduler.allowed-failures``). Then a
batch is put aside and tried alone in the end, first as a whole, then point by point: a point that still ends its worker
is a failed point, and the sweep goes on. Evaluation changes nothing but its caches, so a batch that was begun
twice does no harm: it is yielded once.
"""

import gc
import logging
import multiprocessing.resource_tracker
import os
import pkgutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

import dask
import numpy as np
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, Nanny, get_worker
from distributed.comm import CommClosedError
from distributed.utils import silence_logging_cmgr

from imcsim.errors import ClusterError, ConfigError
from imcsim.sweep.objectives import GIVEN_BY
from imcsim.sweep.stages import Batch, Evaluate, Outcomes
from imcsim.version import __version__

CONNECT_S = 10.0
"""How long a scheduler may take to answer."""

WAIT_S = 300.0
"""How long a sweep waits for a worker, at the start and when all are gone: queues of a cluster take their time."""

LOOK_S = 1.0
"""How often the workers are counted."""

N_UNDER_WAY = 2
"""Batches of a worker: one that it evaluates, and one so that it need not wait for the next."""

QUIET = {
    "distributed.comm.timeouts.connect": f"{CONNECT_S} s",
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
}
LOCAL = QUIET | {
    "distributed.nanny.pre-spawn-environ": {},  # which would change the environment of this process
    "distributed.scheduler.allowed-failures": 0,  # a worker of this machine seldom dies but of its batch
    "distributed.scheduler.worker-ttl": None,
    "distributed.deploy.lost-worker-timeout": "1000 days",  # or one that dies twice within it stays away for good
    "distributed.worker.memory.target": False,  # results are small: what fills a worker is the batch that it evaluates,
    "distributed.worker.memory.spill": False,  # and one that waits for memory would wait for ever
    "distributed.worker.memory.pause": False,
}
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Cluster:
    """The runner of many processes; made by `local_cluster` and `join`."""

    client: Client
    evaluate: Evaluate
    """Known by its name to every worker: a function of a module that workers can import."""

    wait_s: float = WAIT_S

    @property
    def n_workers(self) -> int:
        """How many workers there are now."""
        return len(self.client.nthreads())

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Outcomes]]:
        """Yield every batch with what came out of it, in the order in which they end.

        Raises ClusterError where the scheduler is gone, or all workers are for `wait_s`; and what evaluate raises.
        """
        waiting, under_way, again = iter(batches), _UnderWay(self), []
        try:
            while True:
                while under_way.has_room() and (batch := next(waiting, None)) is not None:
                    under_way.add(batch)
                if not under_way:
                    break
                batch, outcomes = under_way.next()
                if isinstance(outcomes, Outcomes):
                    yield batch, outcomes
                else:
                    again.append((batch, n_died(outcomes)))
            for batch, n in again:
                yield batch, _alone(under_way, batch, n)
        finally:
            under_way.cancel()


class _UnderWay:
    """Batches that workers have or will have, and those that ended."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.batches: dict[Any, Batch] = {}
        self.futures: dict[Any, Future] = {}
        self.ended: SimpleQueue[tuple[Any, Outcomes | BaseException]] = SimpleQueue()
        self.n_workers = 0
        self.looked = -np.inf
        self.seen = time.monotonic()  # when there was a worker

    def __bool__(self) -> bool:
        return bool(self.batches)

    def has_room(self) -> bool:
        self._look()
        return len(self.batches) < max(1, N_UNDER_WAY * self.n_workers)

    def add(self, batch: Batch) -> None:
        client = self.cluster.client
        try:
            future = client.submit(evaluate_here, self.cluster.evaluate, batch, __version__, pure=False)
        except RuntimeError as error:  # the client is closed
            raise self._gone() from error
        self.batches[future.key], self.futures[future.key] = batch, future
        future.add_done_callback(self._collect)

    def next(self) -> tuple[Batch, Outcomes | KilledWorker]:
        """Wait for a batch to end; give it with what came out, or with the error where it ended its workers."""
        while True:
            self._look()
            with suppress(Empty):
                key, found = self.ended.get(timeout=LOOK_S)
                if key in self.batches:
                    break
        del self.futures[key]
        batch = self.batches.pop(key)
        if isinstance(found, (Outcomes, KilledWorker)):
            return batch, found
        if isinstance(found, (CancelledError, CommClosedError)):
            raise self._gone() from found
        if isinstance(found, ImportError):  # of a worker that came later
            check_workers(self.cluster.client)
        raise found

    def _collect(self, future: Future) -> None:
        """Fetch what came out, in a thread of Dask: if its worker died meanwhile, that waits until it is done again."""
        try:
            found = future.result()
        except BaseException as error:
            found = error
        future.release()  # otherwise it is evaluated again if its worker dies before the collector comes round
        self.ended.put((future.key, found))

    def cancel(self) -> None:
        futures = list(self.futures.values())
        self.batches.clear()
        self.futures.clear()
        if futures and self.cluster.client.status == "running":
            with suppress(OSError, CancelledError, TimeoutError):
                self.cluster.client.cancel(futures, force=True)

    def _look(self) -> None:
        """Count the workers, now and then; raises ClusterError where none has been there for long."""
        now = time.monotonic()
        if now < self.looked + LOOK_S:
            return
        client = self.cluster.client
        if client.status in ("closing", "closed"):
            raise self._gone()
        if client.status == "running":
            with suppress(OSError, RuntimeError):  # on the way to be closed
                self.n_workers = self.cluster.n_workers
        self.looked = time.monotonic()
        if self.n_workers:
            self.seen = self.looked
        elif self.looked > self.seen + self.cluster.wait_s:
            raise _no_workers(client, self.cluster.wait_s)

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"scheduler {_address(self.cluster.client)}: must be there until the sweep ends, got no answer any more; "
            "what is stored stays, and the same command goes on from there"
        )


def evaluate_here(evaluate: Evaluate, batch: Batch, version: str) -> Outcomes:
    """Evaluate a batch in a worker; one at a time, on as many threads as Dask gave it. Raises ClusterError."""
    worker = get_worker()
    if version != __version__:  # of a worker that came later
        raise _other_version(worker.address, __version__)
    if "numba" not in sys.modules:  # where it reads how many threads it may use
        os.environ.setdefault("NUMBA_NUM_THREADS", str(worker.state.nthreads))
    with _one_at_a_time:  # kernels have threads of their own
        return evaluate(batch)


def _alone(under_way: _UnderWay, batch: Batch, n: int) -> Outcomes:
    """Evaluate a batch that ended *n* workers, or was near one that did, with no other under way."""
    under_way.add(batch)
    _, outcomes = under_way.next()
    if isinstance(outcomes, Outcomes):
        return outcomes
    n += n_died(outcomes)
    if len(batch.points) == 1:
        return lost(batch, n)
    singles = [
        replace(batch, points=batch.points.take(slice(i, i + 1)), keys=batch.keys[i : i + 1])
        for i in range(len(batch.points))
    ]
    return joined([_alone(under_way, single, n) for single in singles])


def lost(batch: Batch, n: int) -> Outcomes:
    """Return the outcomes of a batch whose points ended *n* workers: no figure, and a message."""
    why = f"the worker died {n} times while evaluating it; it may need more memory than a worker has"
    names = sorted(set().union(*(GIVEN_BY[engine] for engine in batch.stage.engines)))
    n_points = len(batch.points)
    return Outcomes({name: np.full(n_points, np.nan) for name in names}, (why,) * n_points, 0.0)


def n_died(error: KilledWorker) -> int:
    """Return how many workers a task ended before Dask gave it up."""
    return int(error.allowed_failures) + 1


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the outcomes of points one after the other as those of one batch."""
    names = dict.fromkeys(name for part in parts for name in part.figures)
    figures = {
        name: np.concatenate([part.figures.get(name, np.full(len(part.messages), np.nan)) for part in parts])
        for name in names
    }
    messages = tuple(message for part in parts for message in part.messages)
    return Outcomes(figures, messages, sum(part.seconds for part in parts))


@contextmanager
def local_cluster(n_workers: int, evaluate: Evaluate) -> Iterator[Cluster]:
    """Yield a runner of worker processes of this machine, among which its cores are shared out; they end with it.

    They listen on this machine alone, and end too where this process is killed. Raises ConfigError where
    there are less than 1, and ClusterError where they do not start.
    """
    if n_workers < 1:
        raise ConfigError(f"--workers: must be at least 1, got {n_workers}")
    cluster = None
    with dask.config.set(LOCAL), silence_logging_cmgr(logging.CRITICAL + 1):
        try:
            with _without_interrupts():
                cluster = _started(n_workers)
            with Client(cluster, timeout=CONNECT_S, set_as_default=False) as client:
                yield Cluster(client, evaluate)
                _end(cluster)
        finally:
            if cluster is not None:
                _end(cluster)
                cluster.close()


def _started(n_workers: int) -> LocalCluster:
    threads = str(max(1, _n_cores() // n_workers))
    here = "127.0.0.1:0"
    try:
        return LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=here,
            worker_dashboard_address=here, silence_logs=logging.CRITICAL + 1, env=dict.fromkeys(THREADS, threads),
        )  # fmt: skip
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"--workers {n_workers}: worker processes must start, got {_why(error)!r}") from error


@contextmanager
def join(address: str, evaluate: Evaluate, *, wait_s: float = WAIT_S) -> Iterator[Cluster]:
    """Yield a runner of the workers of a Dask scheduler, ``tcp://host:port`` or ``tls://host:port``.

    Certificates are those of Dask's configuration (``distributed.comm.tls``). Raises ClusterError where no scheduler
    answers, no worker is there for *wait_s*, or one has another version of imcsim or none.
    """
    with dask.config.set(QUIET), silence_logging_cmgr(logging.CRITICAL + 1):
        client, why = _connected(address)
        if client is None:
            # What is left of the client closes itself when it is collected, which takes a lock of Dask's: now, and not
            # while the next client holds it, which would wait for itself.
            gc.collect()
            raise ClusterError(
                f"--scheduler {address}: must be the address of a Dask scheduler that answers within {CONNECT_S:.0f} "
                f"s, such as tcp://host:8786, got {why!r}"
            )
        with client:
            deadline = time.monotonic() + wait_s
            while not client.nthreads():
                if time.monotonic() > deadline:
                    raise _no_workers(client, wait_s)
                time.sleep(LOOK_S / 4)
            check_workers(client)
            yield Cluster(client, evaluate, wait_s)


def _connected(address: str) -> tuple[Client | None, str]:
    """Return a client of the scheduler at *address*, or None and why there is none."""
    try:
        return Client(address, timeout=CONNECT_S, set_as_default=False), ""
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        return None, _why(error)


def check_workers(client: Client) -> None:
    """Raise ClusterError where a worker has another version of imcsim than this process, or cannot import it."""
    found = client.run(pkgutil.resolve_name, "imcsim.version:__version__", on_error="return")
    for address, version in sorted(found.items()):
        if isinstance(version, Exception):
            raise ClusterError(
                f"worker {address}: must have imcsim {__version__}, got {type(version).__name__}: {version}; "
                "install it in the environment that workers run in"
            )
        if version != __version__:
            raise _other_version(address, version)


def _other_version(address: str, version: str) -> ClusterError:
    return ClusterError(f"worker {address}: must have imcsim {__version__}, as this process has, got {version}")


def _no_workers(client: Client, wait_s: float) -> ClusterError:
    return ClusterError(
        f"scheduler {_address(client)}: must have a worker, got none for {wait_s:.0f} s; start workers (dask worker "
        f"{_address(client)} --nthreads 1), and the same command goes on from what is stored"
    )


def _why(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _address(client: Client) -> str:
    return str(client.scheduler.address) if client.scheduler else "of the sweep"


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start threads, and the processes that they start, without Ctrl-C: it is for this one, which ends the others.

    The tracker of multiprocessing is started first, since whoever starts it gets interrupts back. It takes away what
    processes that were ended leave, and need not warn of it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    told = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"
    multiprocessing.resource_tracker.ensure_running()
    if told is None:
        del os.environ["PYTHONWARNINGS"]
    else:
        os.environ["PYTHONWARNINGS"] = told
    was = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, was)


def _end(cluster: LocalCluster) -> None:
    """End the worker processes now: what they still evaluate is of no use, and might take long."""
    for nanny in cluster.workers.values():
        if isinstance(nanny, Nanny):
            nanny.close_gracefully()  # which starts no new one
            if nanny.pid:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
