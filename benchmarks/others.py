"""Images a second of `imcsim.execute` on a ResNet-18 (32 x 32 images), beside other simulators of in-memory hardware.

Run as ``python benchmarks/others.py [--threads N] [--rounds N] [--rows N] [--cpu-time]``. Each simulator runs the same
layers on arrays of 256 rows with a converter behind every array. imcsim runs the ternary network on `tim-dnn` and clips
the counts of every 16 rows; the others take its float twin (ReLU, batch norms folded) and quantize inputs and outputs
of every array to 8 bits, at the fastest setting that does so (no noise, fixed ranges), and aihwkit also as it comes
(noise, ranges found for each vector). A simulator that cannot be imported is left out with a line that says why.

``pip install -e '.[bench]'`` installs aihwkit-lightning. aihwkit has no wheel for every Python; its source builds with
a C++ compiler, OpenBLAS's headers and the torch that is there: ``pip install scikit-build pybind11 cmake ninja mypy``
and then ``pip install --no-build-isolation --no-deps aihwkit``.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numba
import numpy as np
import torch
from networks import float_twin, resnet18
from resnet18 import execution, inference, plan_of, seconds
from tile_matmul import cpu_name
from torch import Tensor, nn

WANTED = 8.0
"""Images a second over those of each other simulator; what the project has set itself."""
RESOLUTION = 1 / (2**8 - 2)
"""One step of a converter of 8 bits, as both kits write it."""


def aihwkit(net: nn.Module, n_rows: int, *, is_ideal: bool, as_it_comes: bool = False) -> nn.Module:
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    config = TorchInferenceRPUConfig()
    config.mapping.max_input_size = n_rows
    config.mapping.max_output_size = 0  # as many columns as there are: fewer arrays, which is faster
    config.forward.is_perfect = is_ideal
    if not as_it_comes:
        config.forward.inp_res = config.forward.out_res = RESOLUTION
        config.forward.out_noise = 0.0
        config.forward.noise_management = NoiseManagementType.NONE
        config.forward.bound_management = BoundManagementType.NONE
        config.pre_post.input_range.enable = not is_ideal
    return convert_to_analog(net, config)


def aihwkit_lightning(net: nn.Module, n_rows: int, *, is_ideal: bool) -> nn.Module:
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig

    config = TorchInferenceRPUConfig()
    config.mapping.max_input_size = n_rows
    if not is_ideal:
        config.forward.inp_res = config.forward.out_res = RESOLUTION
        config.forward.out_bound = 12.0
        config.pre_post.input_range.enable = True
    return convert_to_analog(net, config)


OTHERS: dict[str, Callable[..., nn.Module]] = {
    "aihwkit": aihwkit,
    "aihwkit, as it comes": partial(aihwkit, as_it_comes=True),
    "aihwkit-lightning": aihwkit_lightning,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--batch", type=int, default=64, help="images that go through a network together")
    options.add_argument("--rows", type=int, default=256, help="of the other simulators' arrays")
    options.add_argument(
        "--cpu-time", action="store_true", help="count seconds of the processor, for a busy machine; 1 thread alone"
    )
    chosen = options.parse_args()
    n_threads = 1 if chosen.cpu_time else chosen.threads
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    torch.set_num_threads(n_threads)
    numba.set_num_threads(n_threads)
    print(f"cpu:      {cpu_name()}, {n_threads} threads used")
    print(f"versions: python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}")

    images = resnet18().images(chosen.batch, seed=3)
    twin = float_twin(resnet18().drawn("ternary"))
    ways = {"imcsim": execution(plan_of("ternary"), images), "torch float32, no hardware": inference(twin, images)}
    others = dict(simulators(twin, images, chosen.rows))
    ways |= others
    for way in ways.values():
        way()  # compile, pack, warm up
    times = {name: np.empty(chosen.rounds) for name in ways}
    for i in range(chosen.rounds):  # one of each in turn, so that a busy moment of the machine hits all alike
        for name, way in ways.items():
            times[name][i] = min(seconds(way, clock), seconds(way, clock))

    print(f"\n{chosen.batch} images a batch, {chosen.rounds} rounds, medians (least .. greatest)")
    passed = True
    for name in ways:
        line = f"  {name:<28} {len(images) / np.median(times[name]):8.2f} images/s"
        if name in others:
            ratios = times[name] / times["imcsim"]
            ratio = min(float(np.median(ratios)), times[name].min() / times["imcsim"].min())
            passed &= ratio >= WANTED
            verdict = "PASS" if ratio >= WANTED else "MISS"
            line += (
                f"  imcsim is {ratio:.1f} x as fast ({ratios.min():.1f} .. {ratios.max():.1f})  {verdict} {WANTED:g}"
            )
        print(line)
    sys.exit(not passed)


def simulators(twin: nn.Module, images: Tensor, n_rows: int) -> list[tuple[str, Callable[[], object]]]:
    """Return those that are here, by name; print a line for each.

    Raises AssertionError unless each, with ideal converters, gives the logits of the *twin*.
    """
    found = []
    for name, convert in OTHERS.items():
        try:
            ideal = convert(copy.deepcopy(twin), n_rows, is_ideal=True).eval()
        except ImportError as error:
            print(f"{name}: left out, it cannot be imported: {error}")
            continue
        with torch.inference_mode():
            torch.testing.assert_close(ideal(images), twin(images), rtol=1e-3, atol=1e-3)
        net = convert(copy.deepcopy(twin), n_rows, is_ideal=False)
        with torch.no_grad():
            net.train()(images)  # sets the range of every array's inputs from the data, once and for all
        n_layers = sum(type(part).__name__.startswith(("AnalogConv2d", "AnalogLinear")) for part in net.modules())
        print(f"{name}: {version(name.partition(',')[0])}, {n_layers} layers on arrays of {n_rows} rows")
        found.append((name, inference(net.eval(), images)))
    return found


if __name__ == "__main__":
    main()
