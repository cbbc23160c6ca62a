"""Tables, figures and pages from rows.

Importing this package is cheap: pandas, matplotlib and plotly are imported by the modules that use them, when a report
is built.
"""

from pathlib import Path


def build_report(folder: str | Path) -> Path:
    """Write ``report.html`` and ``figures/`` into the *folder* of a run, or of a sweep; return the path of the page.

    Raises DataError when the folder does not hold a whole run or sweep, OutputError when it cannot be written to.
    """
    from imcsim.report.page import build_report as build  # brings pandas, matplotlib and plotly

    return build(Path(folder))
