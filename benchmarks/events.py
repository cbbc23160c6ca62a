"""Events a second of the event engine, beside a bare SimPy loop of as many turns at as many units, in one run.

Run: python benchmarks/events.py [--workload NAME] [--rounds N]

An event is a turn at a unit: a burst that asks for its unit, holds it and hands it on. The bare loop knows neither
bursts nor streams nor stores: each task is a process that requests a `simpy.Resource` and waits for a timeout, over and
over, as often and as long as the task's bursts do. Each round plays both, in turn; the ratio is that of the quickest
rounds. Wanted: at least 0.40 of the bare loop (LIMIT).
"""

import argparse
import sys
import time
from collections.abc import Generator

import simpy

from imcsim.arch.load import load_chip
from imcsim.costs.price import price
from imcsim.mapping.lower import lower
from imcsim.mapping.place import place
from imcsim.sim.engine import Span, play
from imcsim.workloads import find_workload

LIMIT = 0.40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="resnet18-cifar-ternary")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    chip = load_chip("tim-dnn")
    program = lower(place(find_workload(arguments.workload).graph(), chip), price(chip))
    least = {"engine": float("inf"), "bare SimPy": float("inf")}
    for _ in range(arguments.rounds):
        begin = time.process_time()
        spans = play(program)
        least["engine"] = min(least["engine"], time.process_time() - begin)
        begin = time.process_time()
        play_bare(spans)
        least["bare SimPy"] = min(least["bare SimPy"], time.process_time() - begin)
    n_events = sum(len(span.bursts) for span in spans)
    for name, seconds in least.items():
        print(f"{name:<12} {n_events} events in {seconds:.3f} s: {n_events / seconds:9.0f} a second")
    ratio = least["bare SimPy"] / least["engine"]
    is_met = ratio >= LIMIT
    print(f"ratio {ratio:.2f}, wanted at least {LIMIT:.2f}: {'PASS' if is_met else 'MISS'}")
    return int(not is_met)


def play_bare(spans: list[Span]) -> None:
    """Play as many turns at as many units as *spans* have, with SimPy alone."""
    env = simpy.Environment()
    units = {unit: simpy.Resource(env) for unit in dict.fromkeys(span.unit for span in spans)}
    for span in spans:
        n_turns = len(span.bursts)
        env.process(_turns(env, units[span.unit], n_turns, span.busy_ps // n_turns))
    env.run()


def _turns(
    env: simpy.Environment, unit: simpy.Resource, n_turns: int, work_ps: int
) -> Generator[simpy.Event, None, None]:
    for _ in range(n_turns):
        with unit.request() as turn:
            yield turn
            yield env.timeout(work_ps)


if __name__ == "__main__":
    sys.exit(main())
