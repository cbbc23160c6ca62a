"""The event engine against queueing theory: closed forms that it does not know."""

import numpy as np
import pytest

from imcsim.mapping.program import Program, Task
from imcsim.sim.engine import play

N_CUSTOMERS, SERVICE_PS = 3000, 1_000_000


def mean_waits(load, draw_service, seed):
    """Mean wait, in service times, of each of ten runs of a station that customers come to at random."""
    rng = np.random.default_rng(seed)
    waits = []
    for _ in range(10):
        arrivals = np.cumsum(rng.exponential(SERVICE_PS / load, N_CUSTOMERS // 10 + 100)).astype(int)
        services = draw_service(rng, len(arrivals)).astype(int)
        spans = play(
            Program(
                tuple(
                    Task(f"c{i}", "queue", "server", 1, int(service), release_ps=int(arrival))
                    for i, (arrival, service) in enumerate(zip(arrivals, services, strict=True))
                )
            )
        )
        starts = np.array([span.start_ps for span in spans])
        assert np.all(np.diff(starts) >= 0)  # first come, first served
        assert sum(span.busy_ps for span in spans) == services.sum()
        waits.append((starts - arrivals)[100:].mean() / SERVICE_PS)
    return np.array(waits)


def constant(rng, n):
    return np.full(n, SERVICE_PS)


def exponential(rng, n):
    return rng.exponential(SERVICE_PS, n)


@pytest.mark.parametrize(("draw_service", "half"), [(constant, 0.5), (exponential, 1.0)], ids=["M/D/1", "M/M/1"])
def test_the_mean_wait_at_a_station_is_that_of_theory(draw_service, half):
    load = 0.5
    waits = mean_waits(load, draw_service, seed=7)
    theory = half * load / (1 - load)  # Pollaczek and Khinchine, in service times
    # 99 % interval of the mean of ten runs: Student's t, 9 degrees of freedom
    assert abs(waits.mean() - theory) <= 3.25 * waits.std(ddof=1) / np.sqrt(10)


@pytest.mark.parametrize("burst", [None, 1])
def test_a_tandem_of_stations_with_constant_service_passes_all_at_the_pace_of_the_slowest(burst):
    works, n = (30, 70, 20, 50), 40
    tasks = [
        Task(f"t{i}", "line", f"u{i}", n, n * work, streams=(f"t{i - 1}",) if i else ())
        for i, work in enumerate(works)
    ]  # fmt: skip
    for room in (None, 1, 2, 100):
        bounded = [tasks[0]] + [
            Task(t.name, t.layer, t.unit, n, t.work_ps, streams=t.streams,
                 rooms={t.streams[0]: room} if room else {}) for t in tasks[1:]
        ]  # fmt: skip
        assert play(Program(tuple(bounded)), burst=burst)[-1].end_ps == sum(works) + (n - 1) * max(works)
