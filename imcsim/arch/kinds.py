"""The kinds of chip files: which model `kind` stands for.

A new kind is a frozen model that derives from `imcsim.arch.spec.Machine`, names its kinds as the literals of `kind`,
says in `taken_by` which command takes it, and stands in `MODELS`; loading, overrides, the schema and the lists follow.
"""

from imcsim.arch.comparators import (
    EventDriven,
    FpgaDataflow,
    NeuromorphicGrid,
    PopcountCpu,
    Roofline,
    ThroughputRow,
)
from imcsim.arch.macros import Macro
from imcsim.arch.spec import Chip, Machine, kinds_of

MODELS: tuple[type[Machine], ...] = (
    Chip,
    PopcountCpu,
    FpgaDataflow,
    NeuromorphicGrid,
    EventDriven,
    Roofline,
    ThroughputRow,
    Macro,
)


MODEL_OF_KIND: dict[str, type[Machine]] = {kind: model for model in MODELS for kind in kinds_of(model)}
KINDS: tuple[str, ...] = tuple(MODEL_OF_KIND)
