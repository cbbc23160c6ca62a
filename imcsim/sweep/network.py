"""Networks that a sweep evaluates: a workload as it is, or built untrained with a method; read once in each process."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from inspect import signature
from pathlib import Path

import numpy as np

from imcsim.errors import ConfigError
from imcsim.graph import Graph
from imcsim.graph.samples import Samples
from imcsim.run import samples_of
from imcsim.sweep.keys import digest
from imcsim.sweep.points import Value
from imcsim.workloads import Workload, find_workload, shipped_workloads

N_DRAWN = 16
"""Drawn images that set up an untrained network."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network, and of its test set what is asked for."""

    workload: Workload
    quantizer: str | None = None
    """A method that the network is built with, its weights drawn; None for the workload's own weights."""

    @cached_property
    def graph(self) -> Graph:
        """The network as a graph."""
        return self.workload.graph() if self.quantizer is None else _of_method(self.workload, self.quantizer)

    @cached_property
    def digest(self) -> bytes:
        """Of the graph, whatever its name."""
        return digest(replace(self.graph, name=""))

    @cached_property
    def _samples(self) -> dict[tuple[int | None, str | None], tuple[np.ndarray | Samples, np.ndarray]]:
        return {}

    @cached_property
    def _ideal(self) -> dict[tuple[int | None, str | None], Samples]:
        return {}

    def samples(self, n: int | None, data: str | None) -> tuple[np.ndarray | Samples, np.ndarray]:
        """Return the first *n* samples of the test set and their labels."""
        if (n, data) not in self._samples:
            self._samples[n, data] = samples_of(self.workload, n, data)
        return self._samples[n, data]

    def ideal(self, n: int | None, data: str | None) -> Samples:
        """Return what an ideal chip gives for them: the same whatever the chip, so it is computed once."""
        if (n, data) not in self._ideal:
            from imcsim.functional.reference import reference_outputs

            self._ideal[n, data] = reference_outputs(self.graph, self.samples(n, data)[0])
        return self._ideal[n, data]

    def samples_digest(self, n: int | None, data: str | None) -> bytes:
        """Return a digest of the samples and their labels."""
        return digest(self.samples(n, data))


@cache
def network_of(workload: str, quantizer: str | None = None, assume: str | None = None) -> Network:
    """Return the network of a workload's name or path, perhaps with assumed bits; each is read once in a process."""
    return Network(find_workload(workload, assume=assume), quantizer)


def _of_method(workload: Workload, quantizer: str) -> Graph:
    from imcsim.graph.capture import capture
    from imcsim.quant.drawn import drawn, drawn_images
    from imcsim.quant.methods import find_method

    require_method(workload)
    method = find_method(quantizer)
    example = workload.call("example_input")
    images = drawn_images(N_DRAWN, n_channels=example.shape[1], size=example.shape[2])
    network = drawn(lambda given: workload.call("network", given), method, images)
    return capture(network, example, name=workload.name)


def require_method(workload: Workload) -> None:
    """Raise ConfigError unless the workload can be built with a method."""
    network = getattr(workload.module, "network", None)
    if not callable(network) or not signature(network).parameters:
        raise ConfigError(
            f"quantizer: must go with a workload that takes a method, got {workload.name}; its workload.py offers no "
            "network(method)"
        )


def method_text(parameters: Mapping[str, Value]) -> str | None:
    """Return the method that a point's parameters name: ``quantizer`` with the options ``quantizer.NAME``.

    That of a single layer is ``quantizer.LAYER.NAME`` (`imcsim.quant.tailored`).

    >>> method_text({"quantizer": "lsq:bits_w=2", "quantizer.bits_a": 4, "quantizer.3.bits_a": 8})
    'lsq:bits_w=2,bits_a=4,3.bits_a=8'
    """
    if "quantizer" not in parameters:
        return None
    name, _, given = str(parameters["quantizer"]).partition(":")
    options = dict(option.partition("=")[::2] for option in given.split(",") if option)
    for key, value in parameters.items():
        if key.startswith("quantizer."):
            options[key.removeprefix("quantizer.")] = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{name}:{','.join(f'{key}={value}' for key, value in options.items())}" if options else name


def assumption_text(parameters: Mapping[str, Value], base: str | None = None) -> str | None:
    """Return the bits that a point's parameters assume: ``assume``, by default *base*, with the keys ``assume.KEY``.

    >>> assumption_text({"assume.A": 4, "assume.first": 8}, "W=ternary,A=2")
    'W=ternary,A=4,first=8'
    """
    text = str(parameters["assume"]) if "assume" in parameters else base
    changed = {
        key.removeprefix("assume."): str(value) for key, value in parameters.items() if key.startswith("assume.")
    }
    if not changed:
        return text
    told = dict(part.strip().partition("=")[::2] for part in (text or "").split(",") if part)
    return ",".join(f"{key}={value}" for key, value in (told | changed).items())


def is_of_assumption(name: str) -> bool:
    """Whether a parameter says which bits are assumed."""
    return name == "assume" or name.startswith("assume.")


def path_of(workload: str, folder: Path) -> str:
    """Return the name of a shipped workload, or the absolute path of one from *folder*: others may run elsewhere."""
    return workload if workload in shipped_workloads() else str((folder / workload).resolve())
