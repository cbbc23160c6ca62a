"""`imcsim reproduce tim-dnn`: from chip files and workloads to the report."""

from collections.abc import Mapping
from pathlib import Path

from imcsim.errors import ConfigError
from imcsim.reproduce.experiments import Bench, experiments
from imcsim.reproduce.fit import load_fitted, read_record, stated_chips
from imcsim.reproduce.kernel import kernel_curve
from imcsim.reproduce.page import Report, write_report
from imcsim.reproduce.predict import Engine, Progress, predict
from imcsim.reproduce.suite import BATCHES, WIDTHS, Suite
from imcsim.reproduce.targets import ACCELERATORS, CALIBRATION, VALIDATION, Accelerator, read_records, read_targets

PAPERS = ("tim-dnn",)


def reproduce(
    paper: str,
    folder: str | Path,
    *,
    changes: Mapping[str, object] | None = None,
    engine: Engine = "simulate",
    width: int | None = None,
    batch: int | None = None,
    n_draws: int = 400,
    seed: int = 0,
    page: bool = True,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Compute every figure of *paper* that we can, write the report into *folder*, and return it.

    Args:
        paper: Whose figures: tim-dnn.
        folder: For the report; made if it is not there.
        changes: Dotted key to value: changes of the fitted chips. Those of a tile hold for TiM-DNN alone, all others
            for its baselines too. Nothing is fitted anew.
        engine: What gives the values in the middle; intervals, levers and experiments are the formulas'.
        width: Of the CNNs; by default what the fit chose.
        batch: Samples that an inference takes together; by default what the fit chose.
        n_draws: Chips that are drawn for the intervals.
        seed: Of the draws.
        page: Whether to draw the figures and the HTML page.
        command: Named in the report as what made it.
        progress: Told what is done.

    Raises:
        ConfigError: For a paper, width, batch or change that there is none of.
        OutputError: Where the report cannot be written.
    """
    if paper not in PAPERS:
        raise ConfigError(f"{paper}: must be a paper that can be reproduced ({', '.join(PAPERS)})")
    if width not in (None, *WIDTHS):
        raise ConfigError(f"width: must be one of {', '.join(map(str, WIDTHS))}, got {width}")
    if batch is not None and batch < 1:
        raise ConfigError(f"batch: must be at least 1, for example one of {', '.join(map(str, BATCHES))}, got {batch}")
    if n_draws < 1:
        raise ConfigError(f"draws: must be at least 1, got {n_draws}")
    fit = read_record()
    suite = Suite(width or fit.suite.width, batch or fit.suite.batch)
    calibration = read_targets(CALIBRATION)
    fitted = load_fitted(changes)
    results = predict(fitted, suite, calibration, read_targets(VALIDATION), engine=engine, n_draws=n_draws, seed=seed,
                      progress=progress)  # fmt: skip
    progress("experiments", 0, 1)
    tests = experiments(Bench(stated_chips(changes), fitted, suite, fit.factors), results)
    progress("experiments", 1, 1)
    report = Report(
        results=results,
        fit=fit,
        experiments=tests,
        kernel=kernel_curve(fitted, calibration, seed=seed),
        accelerators=read_records(ACCELERATORS, Accelerator),
        command=command or f"imcsim reproduce {paper} --out DIR",
    )
    write_report(report, Path(folder), page=page)
    return report
