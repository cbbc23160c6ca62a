"""Images a second of a ternary ResNet-18 (32 x 32 images) in `imcsim.execute`, beside PyTorch's float32 inference.

Run as ``python benchmarks/resnet18.py [--threads N ...] [--rounds N] [--no-compile] [--profile]``. PyTorch runs the
same layers and weights as an ordinary network: ReLU in place of the quantizers, batch norms folded or not, contiguous
or channels last, as written, frozen by TorchScript, or compiled where a C++ compiler is there; the fastest one of the
run counts. imcsim runs on `tim-dnn`, where counts clip at 8. All take turns in one run, and before anything is timed
imcsim's outputs are checked: on an ideal tile they are the reference's bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import ctypes
import platform
import pstats
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from networks import float_twin, resnet18
from tile_matmul import cpu_name
from torch import Tensor, nn

import imcsim
from imcsim.functional.reference import reference
from imcsim.mapping.plan import Plan

WANTED = {"ternary": 1.3, "binary": 1.3, "2-bit": 0.7}
"""Images a second over those of PyTorch's fastest; what the project has set itself."""
WANTED_WITH_ERRORS = 0.8
"""Speed with sensing errors over that without."""
WANTED_MIB = 1024
"""Peak memory above the weights, for one batch."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, nargs="+", default=sorted({1, numba.config.NUMBA_NUM_THREADS}))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--batch", type=int, default=64, help="images that go through the network together")
    options.add_argument("--activations", nargs="+", choices=list(WANTED), default=list(WANTED))
    options.add_argument(
        "--cpu-time", action="store_true", help="count seconds of the processor, for a busy machine; 1 thread alone"
    )
    options.add_argument("--no-compile", action="store_true", help="leave torch.compile out; it takes a minute")
    options.add_argument("--profile", action="store_true", help="print where imcsim's time goes, and nothing else")
    options.add_argument("--memory-of", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.memory_of:
        print(memory_mib(chosen.memory_of, chosen.batch))
        return
    print(f"cpu:      {cpu_name()}, {numba.config.NUMBA_NUM_THREADS} cores")
    print(f"versions: python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}")
    images = resnet18().images(chosen.batch, seed=3)
    if chosen.profile:
        for activations in chosen.activations:
            profile(activations, images)
        return
    for activations in chosen.activations:
        check(activations, images[:2])
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    passed = True
    for n_threads in [1] if chosen.cpu_time else chosen.threads:
        torch.set_num_threads(n_threads)
        numba.set_num_threads(n_threads)
        theirs = torch_ways(resnet18().drawn("ternary"), images, compiled=not chosen.no_compile)
        passed &= speeds(theirs, chosen.activations, images, chosen.rounds, clock)
    sys.exit(not (passed & memories(chosen.activations, chosen.batch)))


def plan_of(activations: str, **overrides: object) -> Plan:
    workload = resnet18()
    graph = imcsim.capture(workload.drawn(activations), workload.example_input())
    return imcsim.place(graph, imcsim.load_chip("tim-dnn", overrides={f"tile.{k}": v for k, v in overrides.items()}))


def check(activations: str, images: Tensor) -> None:
    """On an ideal tile the outputs are the reference's, bit for bit; on the real one counts clip."""
    ideal = plan_of(activations, count_max=16)
    np.testing.assert_array_equal(imcsim.execute(ideal, images), reference(ideal.graph, images))


def speeds(
    theirs: dict[str, Callable[[], object]], kinds: list[str], images: Tensor, rounds: int, clock: Callable[[], float]
) -> bool:
    ours: dict[str, Callable[[], object]] = {name: execution(plan_of(name), images) for name in kinds}
    ours["with errors"] = execution(plan_of(kinds[0], misreads="circuit"), images)
    ways = theirs | ours
    for way in ways.values():
        way()  # compile, pack, warm up
    times = {name: np.empty(rounds) for name in ways}
    for i in range(rounds):  # one of each in turn, so that a busy moment of the machine hits all alike
        for name, way in ways.items():
            times[name][i] = min(seconds(way, clock), seconds(way, clock))
    fastest = min(theirs, key=lambda name: float(np.median(times[name])))

    kind_of_time = "processor time" if clock is time.process_time else "time"
    print(f"\n{numba.get_num_threads()} threads, batches of {len(images)}, {rounds} rounds, {kind_of_time}", end=", ")
    print("medians (least .. greatest)")
    for name in theirs:
        rate = len(images) / np.median(times[name])
        print(f"  torch float32, {name:<40} {rate:7.1f} images/s{'  <- fastest' if name == fastest else ''}")
    passed = True
    for name in ours:
        base, wanted = (fastest, WANTED[name]) if name in WANTED else (kinds[0], WANTED_WITH_ERRORS)
        ratios = times[base] / times[name]
        ratio = min(float(np.median(ratios)), times[base].min() / times[name].min())
        label = f"{name} activations" if name in WANTED else f"{kinds[0]}, with errors"
        print(
            f"  imcsim, {label:<47} {len(images) / np.median(times[name]):7.1f} images/s  "
            f"{ratio:5.2f} x {'torch' if base == fastest else 'without'} ({ratios.min():.2f} .. {ratios.max():.2f})  "
            f"{'PASS' if ratio >= wanted else 'MISS'} {wanted}"
        )
        passed &= ratio >= wanted
    return passed


def seconds(way: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    way()
    return clock() - start


def execution(plan: Plan, images: Tensor) -> Callable[[], object]:
    x = images.numpy()
    return lambda: imcsim.execute(plan, x, rng=np.random.default_rng(0))


def torch_ways(net: nn.Module, images: Tensor, *, compiled: bool) -> dict[str, Callable[[], object]]:
    """Return the ways to run the float twin of *net* in PyTorch, by name."""
    folded, plain = float_twin(net), float_twin(net, fold=False)
    last = images.to(memory_format=torch.channels_last)
    folded_last = copy.deepcopy(folded).to(memory_format=torch.channels_last)
    ways = {
        "as written, contiguous": (plain, images),
        "as written, channels last": (copy.deepcopy(plain).to(memory_format=torch.channels_last), last),
        "norms folded, contiguous": (folded, images),
        "norms folded, channels last": (folded_last, last),
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript announces its own retirement
        frozen = torch.jit.optimize_for_inference(torch.jit.trace(folded, images))
    ways["norms folded, TorchScript for inference"] = (frozen, images)
    if not compiled:
        print("torch.compile: left out, as asked")
    elif shutil.which("g++") is None and shutil.which("clang++") is None:
        print("torch.compile: left out, there is no C++ compiler here")
    else:
        import torch._inductor.config as inductor

        torch._dynamo.reset()  # what was compiled for another number of threads
        inductor.freezing = True  # the weights are constants, laid out for the processor's own library
        ways["norms folded, contiguous, compiled"] = (torch.compile(folded), images)
        ways["norms folded, channels last, compiled"] = (torch.compile(folded_last), last)
    return {name: inference(*way) for name, way in ways.items()}


def inference(net: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    def once() -> Tensor:
        with torch.inference_mode():
            return net(x)

    return once


def memories(kinds: list[str], batch: int) -> bool:
    passed = True
    print(f"\npeak memory above the weights, one batch of {batch}, each in a process of its own")
    for name in [*kinds, f"{kinds[0]}+errors"]:
        command = [sys.executable, __file__, "--memory-of", name, "--batch", str(batch)]
        mib = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"  {name:<20} {mib:6.0f} MiB  {'PASS' if mib < WANTED_MIB else 'MISS'} {WANTED_MIB}")
        passed &= mib < WANTED_MIB
    return passed


def memory_mib(kind: str, batch: int) -> float:
    """Return how far the resident memory rises while one batch runs, above what it is with all weights packed."""
    activations, _, errors = kind.partition("+")
    plan = plan_of(activations, **({"misreads": "circuit"} if errors else {}))
    images = resnet18().images(batch)
    execution(plan, images[:1])()  # packs the weights, compiles
    ctypes.CDLL(None).malloc_trim(0)  # or what earlier work left behind would hide a part of the peak
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = resident_mib("VmRSS")
    execution(plan, images)()
    return resident_mib("VmHWM") - before


def resident_mib(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"/proc/self/status: must have {field}, got none; memory is measured on Linux alone")
    return int(found[1]) / 1024


def profile(activations: str, images: Tensor) -> None:
    once = execution(plan_of(activations), images)
    once()
    profiler = cProfile.Profile()
    start = time.perf_counter()
    profiler.runcall(once)
    print(f"\n{activations} activations, {len(images)} images, {time.perf_counter() - start:.3f} s with the profiler")
    rows = []
    for (file, _, name), (_, n_calls, own_s, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        rows.append((own_s, n_calls, f"{Path(file).name}:{name}" if file != "~" else name))
    for own_s, n_calls, name in sorted(rows, reverse=True)[:20]:
        print(f"  {own_s:8.3f} s  {n_calls:6} calls  {name}")


if __name__ == "__main__":
    main()
