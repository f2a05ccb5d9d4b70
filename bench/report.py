"""Figures in, text out: tables, goals, and the page that is committed. Pure."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.figures import Figures

NOT_MEASURED = "-"
QUIET_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Column:
    key: str
    head: str
    digits: int = 0


FIRST_BYTE = (
    Column("p50_ms", "first byte p50, ms", 2),
    Column("p99_ms", "p99", 2),
    Column("added_p50_ms", "added p50", 2),
    Column("added_p99_ms", "p99", 2),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "startup": (Column("first_answer_s", "start to first answer, s", 2),),
    "rest": (
        Column("rest_percent", "CPU, % of a core", 1),
        Column("processes", "processes"),
        Column("memory_mb", "own memory, MB"),
    ),
    "json": (
        Column("per_second", "requests/s"),
        Column("core_percent", "% of core"),
        Column("cpu_us", "CPU µs/request"),
        Column("others_us", "others"),
        Column("times_relay", "vs relay", 1),
        *FIRST_BYTE,
    ),
    "steady": (
        Column("per_second", "requests/s"),
        Column("cpu_us", "CPU µs/request"),
        Column("times_relay", "vs relay", 1),
        *FIRST_BYTE,
    ),
    "stream": (
        Column("per_second", "streams/s"),
        Column("core_percent", "% of core"),
        Column("cpu_us", "CPU µs/stream"),
        Column("event_us", "µs/event", 1),
        Column("others_us", "others"),
        Column("times_relay", "vs relay", 1),
        *FIRST_BYTE,
    ),
    "paced": (
        Column("delay_p50_ms", "event delay p50, ms", 2),
        Column("delay_p99_ms", "p99", 2),
        Column("core_percent", "% of core", 1),
        Column("others_percent", "others", 1),
        Column("stream_kb", "memory per stream, KB", 1),
    ),
}


@dataclass(slots=True)
class Table:
    """One scenario: a row of figures for each target, or why there is none."""

    kind: str
    title: str
    rows: dict[str, Figures] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise about one figure of the gateway."""

    text: str
    kind: str
    key: str
    limit: float
    title: str = ""
    at_least: bool = False
    digits: int = 1

    def measured(self, tables: Sequence[Table], target: str) -> float | None:
        """Find the figure in the first table it is about; None if not measured."""
        for table in tables:
            if table.kind == self.kind and self.title in table.title:
                return table.rows.get(target, {}).get(self.key)
        return None

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


TEN = ", 10 callers"
GOALS = (
    Goal("CPU per small request ≤ 900 µs", "json", "cpu_us", 900, TEN, digits=0),
    Goal("… and ≤ 8 times the bare relay", "json", "times_relay", 8, TEN),
    Goal(
        "≥ 1,000 small requests/s",
        "json",
        "per_second",
        1_000,
        TEN,
        at_least=True,
        digits=0,
    ),
    Goal("added time to first byte p50 ≤ 2 ms", "steady", "added_p50_ms", 2),
    Goal("… and p99 ≤ 8 ms", "steady", "added_p99_ms", 8),
    Goal("event delay p99 ≤ 50 ms with all streams live", "paced", "delay_p99_ms", 50),
    Goal("memory per live stream ≤ 100 KB", "paced", "stream_kb", 100),
    Goal("start to first answer ≤ 3 s", "startup", "first_answer_s", 3, digits=2),
)


@dataclass(slots=True)
class Report:
    """One run: everything the page and the JSON file say."""

    command: str
    date: str
    machine: dict[str, str]
    placement: str
    titles: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    disturbance_percent: float = 0.0
    tables: list[Table] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        return any(table.failures for table in self.tables)

    def missed_goals(self, target: str = "gateway") -> list[Goal]:
        """List goals that the run does not show to be met, unmeasured ones included."""
        missed = []
        for goal in GOALS:
            value = goal.measured(self.tables, target)
            if value is None or not goal.is_met(value):
                missed.append(goal)
        return missed


def number(value: float | None, digits: int = 0) -> str:
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Set a table that reads well both as plain text and as Markdown.

    The first column is flush left, all others flush right.
    """
    widths = [max(len(line[at]) for line in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        padded = [first.ljust(widths[0])]
        padded += [
            cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def render_table(table: Table, titles: dict[str, str]) -> str:
    """Set one scenario, one line per target; failures are said below."""
    columns = COLUMNS[table.kind]
    rows = [
        [
            titles[name],
            *(number(row.get(column.key), column.digits) for column in columns),
        ]
        for name, row in table.rows.items()
    ]
    text = (
        markdown_table(["", *(column.head for column in columns)], rows) if rows else ""
    )
    for name, reason in table.failures.items():
        first_line = reason.splitlines()[0] if reason else "no reason given"
        text += f"\n\n**{titles[name]} failed:** `{first_line}`"
    return text.strip("\n")


def render_goals(tables: Sequence[Table], target: str = "gateway") -> str:
    rows = []
    for goal in GOALS:
        value = goal.measured(tables, target)
        verdict = "not measured"
        if value is not None:
            verdict = "met" if goal.is_met(value) else "MISSED"
        rows.append([goal.text, number(value, goal.digits), verdict])
    return markdown_table(["Goal", "measured", ""], rows)


def render_terminal(report: Report) -> str:
    parts = [
        f"{table.title}\n\n{render_table(table, report.titles)}"
        for table in report.tables
    ]
    if "gateway" in report.titles:
        parts.append(f"Goals of the gateway\n\n{render_goals(report.tables)}")
    parts += [f"{name}: {reason}" for name, reason in report.missing.items()]
    parts.append(disturbance(report.disturbance_percent))
    return "\n\n".join(parts)


def disturbance(percent: float) -> str:
    """Say how much other work went on during the run, and what that does to it."""
    said = f"Other work on the machine meanwhile: {percent:.0f} % of a core."
    if percent > QUIET_PERCENT:
        said += " Rates and times are worse for it; trust CPU figures and ratios."
    return said


def render_page(report: Report, template: str) -> str:
    """Fill in the committed page: goals, figures, machine, command and date."""
    facts = {"Command": f"`{report.command}`", "Date": report.date} | report.machine
    figures = [
        f"### {table.title}\n\n{render_table(table, report.titles)}"
        for table in report.tables
    ]
    figures += [
        f"Not measured here: {name} ({why})." for name, why in report.missing.items()
    ]
    return string.Template(template).substitute(
        goals=render_goals(report.tables),
        figures="\n\n".join(figures),
        facts="\n".join(f"- {name}: {value}" for name, value in facts.items()),
        placement=report.placement,
        disturbance=disturbance(report.disturbance_percent),
    )
