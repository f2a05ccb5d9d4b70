"""What a chart consists of, for a template to print: `claudeproxy.charts` makes it.

Left to right a shape is placed in per cent of the width, from top to bottom in pixels.
So a chart fills any width, and its words keep the size of the page's.
"""

from dataclasses import dataclass
from enum import StrEnum


class Look(StrEnum):
    """A colour with its pattern, in a line its dashes; the last four have a meaning."""

    ONE = "1"
    TWO = "2"
    THREE = "3"
    FOUR = "4"
    FIVE = "5"
    SIX = "6"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    IDLE = "idle"


@dataclass(frozen=True)
class Mark:
    """A round number of the vertical axis."""

    text: str
    y: float


@dataclass(frozen=True)
class Label:
    """A time below the horizontal axis; the minor ones are left out if it is narrow."""

    text: str
    x: float
    is_minor: bool


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    look: Look


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    look: Look


@dataclass(frozen=True)
class Line:
    """Points as SVG writes them, in a box of `Chart.line_width` by `Chart.plot`."""

    points: str
    look: Look


@dataclass(frozen=True)
class Column:
    """The whole height of a bucket, and what to say about it."""

    x: float
    width: float
    text: str


@dataclass(frozen=True)
class Key:
    """What a look stands for; `pattern` is drawn over its colour, in a tile of 8."""

    name: str
    look: Look
    pattern: str
    text: str


@dataclass(frozen=True)
class Row:
    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """Values over time; without rows there is nothing to draw, and `summary` says so.

    `id` begins the ids of its elements, and so it is unique in its page.
    """

    id: str
    title: str
    summary: str
    value_axis: str = ""
    time_axis: str = ""
    marks: tuple[Mark, ...] = ()
    labels: tuple[Label, ...] = ()
    columns: tuple[Column, ...] = ()
    bars: tuple[Bar, ...] = ()
    bands: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    keys: tuple[Key, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    top: int = 10  # room for half of the uppermost number
    plot: int = 160
    bottom: int = 24  # room for the words below
    line_width: int = 1000  # stretched to the width: lines know no per cents

    @property
    def baseline(self) -> int:
        return self.top + self.plot

    @property
    def height(self) -> int:
        return self.baseline + self.bottom

    @property
    def label_y(self) -> int:
        return self.baseline + 17


@dataclass(frozen=True)
class RankedEntry:
    """A name, its bar, its value in short and in full, and its part of the whole."""

    name: str
    url: str
    width: float
    text: str
    exact: str
    share: str


@dataclass(frozen=True)
class Ranking:
    """Names with a bar each, the longest first, as a table."""

    id: str
    title: str
    unit: str
    entries: tuple[RankedEntry, ...]
    empty: str


@dataclass(frozen=True)
class Sparkline:
    """A line as high as a row of text; `label` says in words what it shows."""

    label: str
    lines: tuple[str, ...]
    width: int = 100
    height: int = 24
