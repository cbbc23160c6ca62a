"""The section of the page that says why the simulation took the time it took."""

import base64

from imcsim.report.figures import render
from imcsim.report.load import RunFolder
from imcsim.report.time_figures import time_drawings
from imcsim.report.time_tables import time_tables
from imcsim.report.views import Image, Section


def time_sections(run: RunFolder) -> list[Section]:
    """Return the section, if the time of *run* was explained."""
    time = run.summary.time
    if time is None:
        return []
    paragraphs = [
        " ".join(time.sentences),
        "The critical path is walked back from the end through what each burst waited for last; its segments add up to "
        "the latency. What a component does to the time is found by playing the same plan again with all its actions "
        "free, in every layer. Where two units keep the same pace, freeing one of them alone helps nobody. "
        "critical_path.csv has every segment.",
    ]
    images = [
        Image(name, "Who works when, and the critical path", " ".join(time.sentences), _base64(render(draw)[0]))
        for name, draw in time_drawings(run).items()
    ]
    return [Section("time", "What decides the time", paragraphs, tables=time_tables(time), images=images)]


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")
