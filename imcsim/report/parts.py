"""Records of ``summary.json`` that say what accounts for an accuracy, and what every record of it is made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
SignedShare = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A record of ``summary.json``: frozen; what later versions add is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, use_attribute_docstrings=True)


class Difference(Part):
    """An accuracy less that of the reference, on the same samples."""

    value: SignedShare
    interval: Annotated[tuple[SignedShare, SignedShare], Field(strict=False)]
    n_better: Number
    """Samples that the reference alone gets wrong."""

    n_worse: Number
    """Samples that the reference alone gets right."""

    method: str


class TrialsSummary(Part):
    """How far the accuracies of several chips spread."""

    n: Number
    is_random: bool
    n_samples: Number
    mean: Share
    std: NotNegative
    worst: Share
    best: Share
    quantiles: dict[str, Share]
    seeds: Annotated[tuple[Number, ...], Field(strict=False)]
    accuracies: Annotated[tuple[Share, ...], Field(strict=False)]


class DeviationSummary(Part):
    """How far numbers are from the reference's."""

    n_values: Number
    n_different: Number
    signal: NotNegative
    error: NotNegative
    ratio_dB: Annotated[float, Field(allow_inf_nan=False)] | None
    """None where every number is exact, or the reference's are all 0."""


class LayerErrorSummary(Part):
    """How far one layer is from the reference: in the network, and of its own."""

    name: str
    sums: DeviationSummary | None
    own_sums: DeviationSummary | None
    outputs: DeviationSummary
    own_outputs: DeviationSummary


class FirstDifferenceSummary(Part):
    """The first number of the walk that is not the reference's."""

    layer: str
    stage: Literal["sums", "outputs"]
    sample: Number
    place: Annotated[tuple[Number, ...], Field(strict=False)]
    """(channel), or (channel, row, column)."""

    expected: float
    found: float


class LayerErrorsSummary(Part):
    """Where error is born, and where it is only passed on."""

    n_samples: Number
    first_difference: FirstDifferenceSummary | None
    layers: Annotated[tuple[LayerErrorSummary, ...], Field(strict=False)]


class AblatedSummary(Part):
    """One way of making layers real, against the reference."""

    accuracy: Share
    difference: Difference


class AblatedLayerSummary(Part):
    """What one layer does to the accuracy."""

    name: str
    alone: AblatedSummary
    """This layer real, all others ideal."""

    others: AblatedSummary
    """This layer ideal, all others real."""


class AblationSummary(Part):
    """What each layer does to the accuracy."""

    n_samples: Number
    reference: Share
    whole: AblatedSummary
    layers: Annotated[tuple[AblatedLayerSummary, ...], Field(strict=False)]


class LatencySummary(Part):
    """Latencies of requests: mean, percentiles, greatest."""

    mean: NotNegative
    p50: NotNegative
    p95: NotNegative
    p99: NotNegative
    greatest: NotNegative


class LoadSummary(Part):
    """Requests at one offered load."""

    load: NotNegative
    """Share of the rate that the formula gives."""

    offered_per_s: NotNegative
    throughput_per_s: NotNegative
    mean_ns: NotNegative
    p50_ns: NotNegative
    p95_ns: NotNegative
    p99_ns: NotNegative
    greatest_ns: NotNegative


class RequestsSummary(Part):
    """What became of requests, an inference each."""

    arrivals: str
    n: Annotated[int, Field(ge=1)]
    offered_per_s: NotNegative | None
    """None where all arrive at once."""

    throughput_per_s: NotNegative
    capacity_per_s: NotNegative
    latency_ns: LatencySummary
    wait_ns: NotNegative
    mean_in_system: NotNegative
    most_in_system: Number
    busiest_unit: str
    utilization: NotNegative
    energy_pJ: NotNegative
    loads: Annotated[tuple[LoadSummary, ...], Field(strict=False, min_length=1)] | None
