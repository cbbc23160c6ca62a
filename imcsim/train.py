"""Training a workload with any method: one honest loop, resumable, the test set touched once at the end.

One thread, one seed, one order: two runs give the same bits, and so does a run that was stopped and went on. The
epoch is picked on a part of the training set. What is written is a workload: ``imcsim run DIR`` takes the folder.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from imcsim.errors import ConfigError, DataError
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method
from imcsim.quant.networks import Float, copy_float, soft_targets
from imcsim.quant.training import Labelled, accuracy, mirrored, shifted
from imcsim.results import write_whole
from imcsim.run import require_writable
from imcsim.version import __version__
from imcsim.workloads import Workload, find_workload, offers

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

VALIDATION_SHARE = 12
"""One training image in so many is held back to pick the epoch."""

N_DEPLOY = 1024
"""Training images that `Method.initialise` and `Method.deploy` may look at."""

WEIGHTS, RECORD, CHECKPOINT, MODULE = "weights.safetensors", "training.json", "checkpoint.safetensors", "workload.py"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the result, beside workload, method and data."""

    n_epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 0.002
    seed: int = 0
    n_train: int | None = None
    """Training images, drawn by the seed of 0 whatever `seed` is; None: all of them."""

    start: str = "float"
    """``float``: train with real weights for as many epochs first; ``scratch``; or a folder that was trained."""

    augment: str = "none"
    """none, mirror (left to right), shift (by up to 2 pixels) or both."""

    distillation: float = 0.0
    """Weight of the divergence from the outputs of the float network, beside the labels."""

    def __post_init__(self) -> None:
        for name in ("n_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.n_train is not None and self.n_train < 2 * VALIDATION_SHARE:
            raise ConfigError(f"n_train: must be at least {2 * VALIDATION_SHARE}, got {self.n_train}")
        if self.seed < 0:
            raise ConfigError(f"seed: must be 0 or more, got {self.seed}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate: must be finite and above 0, got {self.learning_rate}")
        if not 0 <= self.distillation < math.inf:
            raise ConfigError(f"distillation: must be finite and from 0 up, got {self.distillation}")
        if self.augment not in AUGMENT:
            raise ConfigError(f"augment: must be {', '.join(AUGMENT)}, got {self.augment!r}")


AUGMENT: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "mirror": mirrored,
    "shift": lambda images, generator: shifted(images, generator, most=2),
    "both": lambda images, generator: mirrored(shifted(images, generator, most=2), generator),
}
"""What is done to a batch of training images."""


@dataclass(frozen=True)
class Trained:
    """What became of a training."""

    network: nn.Module
    validation: tuple[float, ...]
    """Accuracy after each epoch."""

    test_accuracy: float
    n_test: int
    folder: Path


def train(
    workload: Workload,
    method: Method,
    settings: Settings,
    folder: str | Path,
    *,
    data: str | Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train *workload* with *method* and write it to *folder*, going on where an earlier run of the same was stopped.

    Raises ConfigError for a workload that takes no method or a folder of another training, and DataError without data.
    """
    folder = Path(folder)
    for needed in ("network", "split", "example_input"):
        if not offers(workload.module, needed):
            raise ConfigError(f"{workload.path}: {needed}(): missing; a workload that is trained needs it")
    workload.one_example()
    require_writable(folder)
    identity = _identity(workload, method, settings)
    _require_same(folder, identity)
    (images, labels), validation, test = _data(workload, settings, data)
    with _one_thread():
        teacher = _teacher(workload, method, settings, folder, data, progress)
        torch.manual_seed(settings.seed)
        network = method.build(lambda given: workload.call("network", given))
        _materialise(network, images)
        if teacher is not None and settings.start != "scratch":
            copy_float(teacher, network)
        loop = _Loop(network, method, settings, (images, labels), validation, teacher, identity, folder)
        loop.run(progress)
        method.deploy(network, images[:N_DEPLOY])
        network.eval()
        test_accuracy = accuracy(network, *test)
    trained = Trained(network, tuple(loop.accuracies), test_accuracy, len(test[0]), folder)
    _write(trained, workload, identity, len(images), len(validation[0]))
    return trained


class _Loop:
    """The epochs, and what of them is kept in the checkpoint."""

    def __init__(
        self,
        network: nn.Module,
        method: Method,
        settings: Settings,
        labelled: Labelled,
        validation: Labelled,
        teacher: nn.Module | None,
        identity: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self.network, self.method, self.settings = network, method, settings
        self.images, self.labels = labelled
        self.validation, self.teacher = validation, teacher
        self.identity, self.path = identity, folder / CHECKPOINT
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.accuracies: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.n_batches = max(1, len(self.images) // settings.batch_size)
        self.n_steps = settings.n_epochs * self.n_batches

    def run(self, progress: Progress | None) -> None:
        """Train, from the checkpoint if there is one, and leave the network as it was after its best epoch."""
        method, network = self.method, self.network
        network.train()
        method.allocate(network, self.images[:N_DEPLOY], self.labels[:N_DEPLOY])
        method.initialise(network, self.images[:N_DEPLOY])
        self.optimizer = method.optimizer(network, self.settings.learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        first = self._resume()
        what = f"train {method} seed {self.settings.seed}"
        for epoch in range(first, self.settings.n_epochs):
            network.train()
            self._epoch(epoch)
            self.accuracies.append(accuracy(network, *self.validation))
            counted = self.accuracies[self._first_counted() :]
            if counted and counted[-1] >= max(counted):
                self.best = copy.deepcopy(network.state_dict())
            self._checkpoint(epoch + 1)
            if progress is not None:
                progress(what, epoch + 1, self.settings.n_epochs)
        network.load_state_dict(self.best)

    def _first_counted(self) -> int:
        """Return the first epoch that may be picked: the method has settled when it ends, and the last one always."""
        n = self.settings.n_epochs
        return min(n - 1, math.ceil(self.method.settles_at * n - 1e-9) - 1 if self.method.settles_at else 0)

    def _epoch(self, epoch: int) -> None:
        size = self.settings.batch_size
        order = torch.randperm(len(self.images), generator=self.generator)
        augment = AUGMENT[self.settings.augment]
        for number, picks in enumerate(order.split(size)[: self.n_batches]):
            self.method.before_step(self.network, (epoch * self.n_batches + number) / self.n_steps)
            images, labels = augment(self.images[picks], self.generator), self.labels[picks]
            loss = self._loss(images, labels)
            if not bool(torch.isfinite(loss)):
                raise DataError(
                    f"{self.method}: the loss must stay finite, got {loss.item()} in epoch {epoch + 1}; lower the "
                    "learning rate"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.method.after_backward(self.network)
            self.optimizer.step()
            self.schedule.step()
            self.method.after_step(self.network)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self.network(images)
        loss = self.method.loss(self.network, images, outputs, labels, self.teacher)
        if self.settings.distillation and self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(images)
            loss = loss + self.settings.distillation * soft_targets(outputs, wanted)
        return loss

    def _rate(self, step: int) -> float:
        """Up over the first twentieth of the steps, then down a cosine to a hundredth."""
        warm = max(1, self.n_steps // 20)
        if step < warm:
            return (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, self.n_steps - warm))
        return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2

    # --- the checkpoint ---------------------------------------------------------------------------------------------

    def _checkpoint(self, n_done: int) -> None:
        tensors: dict[str, Tensor] = {}
        tensors |= {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors["random/order"] = self.generator.get_state()
        tensors["random/torch"] = torch.get_rng_state()
        optimizer = self.optimizer.state_dict()
        numbers: dict[str, Any] = {}
        for index, state in optimizer["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{index}/{key}"] = value
                else:
                    numbers[f"{index}/{key}"] = value
        said = {
            "identity": json.dumps(self.identity),
            "n_done": str(n_done),
            "accuracies": json.dumps(self.accuracies),
            "groups": json.dumps(optimizer["param_groups"]),
            "numbers": json.dumps(numbers),
            "schedule": json.dumps({k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"}),
        }
        whole = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        write_whole(self.path, save(whole, metadata=said))

    def _resume(self) -> int:
        """Load the checkpoint, if there is one of this training; return how many epochs are done."""
        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                said = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no iterator of it)
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{self.path}: must be a checkpoint that can be read, got {str(error).splitlines()[0]}; delete it"
            ) from None
        if said.get("identity") != json.dumps(self.identity):
            raise ConfigError(
                f"{self.path}: must be of the same training, got another; delete it or take another --out"
            )
        parts = _by_prefix(tensors)
        self.network.load_state_dict(parts["network"])
        self.best = parts.get("best", {})
        self.generator.set_state(parts["random"]["order"])
        torch.set_rng_state(parts["random"]["torch"])
        state: dict[int, dict[str, Any]] = {}
        for name, value in parts.get("optimizer", {}).items():
            index, key = name.split("/", 1)
            state.setdefault(int(index), {})[key] = value
        for name, number in json.loads(said["numbers"]).items():
            index, key = name.split("/", 1)
            state.setdefault(int(index), {})[key] = number
        groups = json.loads(said["groups"])
        for group in groups:
            if "betas" in group:
                group["betas"] = tuple(group["betas"])
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.schedule.load_state_dict(json.loads(said["schedule"]) | {"lr_lambdas": [None] * len(groups)})
        self.accuracies = json.loads(said["accuracies"])
        return int(said["n_done"])


def _by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, rest = name.split("/", 1)
        parts.setdefault(prefix, {})[rest] = value
    return parts


# --- before and after ----------------------------------------------------------------------------------------------


def _identity(workload: Workload, method: Method, settings: Settings) -> dict[str, Any]:
    return {
        "workload": workload.name,
        "quantizer": str(method),
        "id": method.record.id,
        "dataset": workload.said("DATASET"),
        **asdict(settings),
        "version": __version__,
    }


def _require_same(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise ConfigError where *folder* holds what came of another training."""
    path = folder / RECORD
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: must be what a training wrote, got something else; delete it") from None
    odd = next((key for key, value in identity.items() if key != "version" and found.get(key) != value), None)
    if odd is not None:
        raise ConfigError(
            f"{folder}: must be a new folder or one of the same training, got {odd} {found.get(odd)!r} there and "
            f"{identity[odd]!r} asked; take another --out"
        )


def _data(workload: Workload, settings: Settings, data: str | Path | None) -> tuple[Labelled, Labelled, Labelled]:
    images, labels = workload.call("split", "train", data)
    if settings.n_train is not None:
        if settings.n_train > len(images):
            raise ConfigError(f"n_train: must be at most the {len(images)} training images, got {settings.n_train}")
        picks = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: settings.n_train]
        images, labels = images[picks], labels[picks]
    held = torch.arange(len(images)) % VALIDATION_SHARE == 0
    return (images[~held], labels[~held]), (images[held], labels[held]), workload.call("split", "test", data)


def _teacher(
    workload: Workload,
    method: Method,
    settings: Settings,
    folder: Path,
    data: str | Path | None,
    progress: Progress | None,
) -> nn.Module | None:
    """Return the trained float network that the training starts from or learns from, or None."""
    if isinstance(method, Float):
        return None
    if settings.start == "scratch" and not (method.takes_teacher or settings.distillation):
        return None
    if settings.start not in ("float", "scratch"):
        return load(Path(settings.start))[1]
    same = Settings(**{**asdict(settings), "start": "scratch", "distillation": 0.0})
    return train(workload, Float(), same, folder / "float", data=data, progress=progress).network


def _materialise(network: nn.Module, images: Tensor) -> None:
    """Run two images through, for layers that make their tables when they first see an image."""
    network.eval()
    with torch.no_grad():
        network(images[:2])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of gradients depend on the number of threads, so there is one; what was set comes back."""
    n_threads, was = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        torch.use_deterministic_algorithms(was)


def _write(trained: Trained, workload: Workload, identity: Mapping[str, Any], n_train: int, n_validation: int) -> None:
    folder = trained.folder
    state = {name: value.detach().contiguous().clone() for name, value in trained.network.state_dict().items()}
    write_whole(folder / WEIGHTS, save(state))
    record = {
        "settings": identity,
        "workload_path": None if workload.is_shipped else str(workload.path.resolve()),
        "n_train": n_train,
        "n_validation": n_validation,
        "validation_accuracy": list(trained.validation),
        "test_accuracy": trained.test_accuracy,
        "n_test": trained.n_test,
        "torch": torch.__version__,
    }
    write_whole(folder / RECORD, json.dumps(record, indent=2) + "\n")
    write_whole(folder / MODULE, _MODULE.format(**identity, accuracy=f"{trained.test_accuracy:.4f}"))
    (folder / CHECKPOINT).unlink(missing_ok=True)


_MODULE = '''"""{workload}, quantized by {quantizer}, as imcsim train left it: weights.safetensors, training.json."""

from imcsim.train import functions_of

DESCRIPTION = "{workload} by {quantizer} ({id}), seed {seed}, test accuracy {accuracy}"
DATASET = "{dataset}"

build, example_input, data, split, network = functions_of(__file__)
'''


def accuracy_of(folder: str | Path) -> float | None:
    """Return the test accuracy of what was trained in *folder*, or None where no training has ended."""
    try:
        return float(json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))["test_accuracy"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load(folder: Path) -> tuple[Workload, nn.Module]:
    """Return the workload and the network, in eval mode, that a training left in *folder*."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        settings, path = record["settings"], record["workload_path"]
        quantizer, name = str(settings["quantizer"]), str(settings["workload"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / RECORD}: must be what imcsim train wrote, got {type(error).__name__}; train again"
        ) from None
    workload = find_workload(path or name)
    method = find_method(quantizer)
    network = method.build(lambda given: workload.call("network", given))
    _materialise(network, workload.one_example())
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no iterator of it)
        method.restore(network, state)
    except (SafetensorError, OSError, RuntimeError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DataError(f"{folder / WEIGHTS}: must hold the weights of {name}, got {first}; train again") from None
    return workload, network.eval()


def functions_of(file: str | Path) -> tuple[Callable[..., Any], ...]:
    """Return ``build``, ``example_input``, ``data``, ``split`` and ``network`` of the training beside *file*."""
    folder = Path(file).resolve().parent

    def module() -> Any:
        return load(folder)[0].module

    def build() -> nn.Module:
        return load(folder)[1]

    def example_input() -> Tensor:
        return module().example_input()

    def data(path: str | Path | None = None) -> Labelled:
        return module().split("test", path)

    def split(name: str, path: str | Path | None = None) -> Labelled:
        return module().split(name, path)

    def network(method: Method) -> nn.Module:
        return module().network(method)

    return build, example_input, data, split, network
