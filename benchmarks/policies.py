"""Latency, energy and energy times delay of each policy and of searches, beside the default policy.

Run: python benchmarks/policies.py [--trials N] [--engine simulate|estimate]
"""

import argparse
import sys

import imcsim
from imcsim.mapping.place import POLICIES, place
from imcsim.search import search
from imcsim.sim import simulate
from imcsim.workloads import shipped_workloads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--engine", choices=["simulate", "estimate"], default="simulate")
    args = parser.parse_args()
    chip, is_better = imcsim.load_chip("tim-dnn"), True
    for name in [n for n in ("resnet18-cifar-ternary", "resnet34") if n in shipped_workloads()]:
        graph = imcsim.load_workload(name)
        plans = {policy: place(graph, chip, policy=function) for policy, function in POLICIES.items()}
        for objective in ("latency", "energy", "edp"):
            found = search(graph, chip, objective=objective, n_trials=args.trials, engine=args.engine)
            plans[f"search:{objective} ({len(found.trials)})"] = found.plan
        traces = {policy: simulate(plan) for policy, plan in plans.items()}
        default, plain = traces["least_time"], traces["as_they_are"]
        print(f"{name} on {chip.name}, simulated; in brackets beside the default, least_time")
        print(f"{'policy (plans judged)':<24} {'latency us':>20} {'energy uJ':>20} {'EDP uJ us':>22}")
        for policy, trace in traces.items():
            edp, of_default = trace.energy_pJ * trace.latency_ns, default.energy_pJ * default.latency_ns
            print(f"{policy:<24} {trace.latency_ns / 1e3:11.3f} ({trace.latency_ns / default.latency_ns - 1:+6.1%})"
                  f" {trace.energy_pJ / 1e6:11.3f} ({trace.energy_pJ / default.energy_pJ - 1:+6.2%})"
                  f" {edp / 1e9:13.1f} ({edp / of_default - 1:+6.1%})")  # fmt: skip
        is_better &= default.latency_ns < plain.latency_ns
    print(f"least_time is faster than as_they_are: {'PASS' if is_better else 'MISS'}")
    return int(not is_better)


if __name__ == "__main__":
    sys.exit(main())
