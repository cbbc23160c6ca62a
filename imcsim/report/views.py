"""What a page is made of, as text: sections with paragraphs, charts and tables."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imcsim.report.charts import Chart  # brings plotly, which a terminal does without
    from imcsim.report.origin_trees import Node


@dataclass(frozen=True)
class TableView:
    """A table as the page shows it: cells are text already."""

    caption: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: frozenset[int] = frozenset()
    """Columns that are set to the right."""


@dataclass(frozen=True)
class Image:
    """A figure for print, as the page shows it."""

    name: str
    title: str
    label: str
    """What it shows, for those who do not see it."""

    png: str
    """Base 64."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    name: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    charts: "list[Chart]" = field(default_factory=list)
    tables: list[TableView] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    trees: "list[Node]" = field(default_factory=list)
    """Figures with what they come from, told when they are opened."""
