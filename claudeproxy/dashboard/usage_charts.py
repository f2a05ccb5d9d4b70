"""Turns what was used into tiles and charts; pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from claudeproxy import charts, figures
from claudeproxy.charts import Buckets, Entry, Series
from claudeproxy.dashboard.readings import Readings, Totals
from claudeproxy.figures import (
    DOLLARS,
    MILLISECONDS,
    PERCENT,
    REQUESTS,
    TOKENS,
    Unit,
    Value,
)
from claudeproxy.shapes import Chart, Look, Ranking, Sparkline
from usage.outcome import Outcome
from usage.reports import Latency, Line

_RANKED = 8
_OUTCOME_LOOKS = {
    Outcome.SERVED: Look.GOOD,
    Outcome.REFUSED: Look.WARNING,
    Outcome.FAILED: Look.BAD,
    Outcome.GONE: Look.IDLE,
}
_TOKEN_CLASSES: Mapping[str, Callable[[Line], int]] = {
    "input": lambda line: line.input_tokens,
    "cache write, 5 min": lambda line: line.write_5m_tokens,
    "cache write, 1 h": lambda line: line.write_1h_tokens,
    "cache read": lambda line: line.read_tokens,
    "output": lambda line: line.output_tokens,
}


@dataclass(frozen=True)
class Tile:
    """A figure, in short and in full, what belongs to it, and how it was before."""

    name: str
    value: str
    exact: str
    notes: tuple[str, ...]
    before: str
    sparkline: Sparkline


@dataclass(frozen=True)
class Named:
    """A line of a ranking: what it is called, and its page if it has one."""

    line: Line
    name: str
    url: str = ""


def tiles(readings: Readings, buckets: Buckets) -> tuple[Tile, ...]:
    """Say the five figures that matter most, each beside the span before."""
    line = readings.total.line

    def tile(
        name: str,
        unit: Unit,
        measure: Callable[[Totals], Value | None],
        *notes: str,
    ) -> Tile:
        value, before = measure(readings.total), measure(readings.before)
        series = [
            measure(it) if (it := readings.buckets.get(at)) else _none_of(unit)
            for at in buckets.starts
        ]
        return Tile(
            name=name,
            value="none" if value is None else figures.compact(value, unit),
            exact="none" if value is None else figures.exact(value, unit),
            notes=tuple(filter(None, notes)),
            before=_compare(value, before, unit),
            sparkline=charts.sparkline(f"{name} by {buckets.step.value}", unit, series),
        )

    p99 = line.first_byte.p99
    return (
        tile(
            "Requests",
            REQUESTS,
            lambda it: it.line.requests,
            *_counted(readings.total, Outcome.GONE),
        ),
        tile(
            "Error rate",
            PERCENT,
            _error_rate,
            *_counted(readings.total, Outcome.FAILED, Outcome.REFUSED),
        ),
        tile("Tokens", TOKENS, lambda it: _tokens(it.line), _cached(line)),
        tile(
            "Cost",
            DOLLARS,
            lambda it: it.line.cost,
            f"{figures.compact(line.notional_cost, DOLLARS)} of it notional"
            if line.notional_cost
            else "",
            f"{figures.compact(line.unpriced, REQUESTS)} requests unpriced"
            if line.unpriced
            else "",
        ),
        tile(
            "First byte, p95",
            MILLISECONDS,
            lambda it: it.line.first_byte.p95,
            "" if p99 is None else f"p99 {figures.compact(p99, MILLISECONDS)}",
        ),
    )


def over_time(readings: Readings, buckets: Buckets) -> tuple[Chart, ...]:
    """Draw how requests, errors, tokens, cost and latency went."""
    found = [readings.buckets.get(at) for at in buckets.starts]

    def counted(outcome: Outcome) -> Series:
        values = tuple(it.count(outcome) if it else 0 for it in found)
        return Series(outcome.label, values, _OUTCOME_LOOKS[outcome])

    def summed(name: str, measure: Callable[[Line], Value]) -> Series:
        return Series(name, tuple(measure(it.line) if it else 0 for it in found))

    def latencies(measure: Callable[[Line], Latency]) -> list[Series]:
        spans = [measure(it.line) if it else Latency(None, None, None) for it in found]
        return [
            Series("p50", tuple(it.p50 for it in spans)),
            Series("p95", tuple(it.p95 for it in spans)),
            Series("p99", tuple(it.p99 for it in spans)),
        ]

    return (
        charts.bars(
            "requests",
            "Requests",
            REQUESTS,
            buckets,
            [counted(it) for it in _OUTCOME_LOOKS],
        ),
        charts.bars(
            "errors",
            "Errors",
            REQUESTS,
            buckets,
            [counted(Outcome.FAILED), counted(Outcome.REFUSED)],
        ),
        charts.bars(
            "tokens",
            "Tokens by class",
            TOKENS,
            buckets,
            [summed(name, measure) for name, measure in _TOKEN_CLASSES.items()],
        ),
        charts.bars(
            "cost",
            "Cost by the list",
            DOLLARS,
            buckets,
            [
                summed("paid per token", lambda it: it.cost - it.notional_cost),
                summed("notional, covered by a plan", lambda it: it.notional_cost),
            ],
        ),
        charts.lines(
            "first-byte",
            "Time to the first byte",
            MILLISECONDS,
            buckets,
            latencies(lambda it: it.first_byte),
            has_band=True,
        ),
        charts.lines(
            "duration",
            "Time to the last byte",
            MILLISECONDS,
            buckets,
            latencies(lambda it: it.duration),
            has_band=True,
        ),
    )


def rankings(what: str, named: Iterable[Named]) -> tuple[Ranking, Ranking]:
    """Rank accounts, keys or models, by what they cost and by their requests."""
    lines = list(named)
    return (
        _rank(f"{what}-by-cost", f"{what} by cost".capitalize(), DOLLARS, lines),
        _rank(
            f"{what}-by-requests", f"{what} by requests".capitalize(), REQUESTS, lines
        ),
    )


def _rank(id: str, title: str, unit: Unit, lines: list[Named]) -> Ranking:
    def measure(it: Named) -> Value:
        return it.line.cost if unit is DOLLARS else it.line.requests

    in_order = sorted(lines, key=lambda it: (-measure(it), it.name))
    entries = [Entry(it.name, measure(it), it.url) for it in in_order[:_RANKED]]
    if rest := in_order[_RANKED:]:
        name = "1 other" if len(rest) == 1 else f"{len(rest)} others"
        amount = sum(map(measure, rest), Decimal(0))
        entries.append(Entry(name, amount, is_rest=True))
    return charts.ranking(id, title, unit, entries)


def _none_of(unit: Unit) -> Value | None:
    """What a bucket without requests shows: no tokens, but no latency at all."""
    return 0 if unit.adds_up else None


def _tokens(line: Line) -> int:
    return sum(measure(line) for measure in _TOKEN_CLASSES.values())


def _cached(line: Line) -> str:
    prompt = _tokens(line) - line.output_tokens
    if not prompt:
        return ""
    share = Decimal(100 * line.read_tokens) / prompt
    return f"{figures.compact(round(share), PERCENT)} from the cache"


def _error_rate(totals: Totals) -> Value | None:
    if not totals.line.requests:
        return None
    failed = totals.count(Outcome.FAILED)
    return Decimal(100 * failed) / totals.line.requests


def _counted(totals: Totals, *outcomes: Outcome) -> tuple[str, ...]:
    return tuple(
        f"{figures.compact(count, REQUESTS)} {outcome.label}"
        for outcome in outcomes
        if (count := totals.count(outcome))
    )


def _compare(value: Value | None, before: Value | None, unit: Unit) -> str:
    """Say what it was in the span before, and by how much it has changed."""
    if before is None or (not before and unit.adds_up):
        return "nothing before"
    words = f"{figures.compact(before, unit)} before"
    if value is None or not before or unit is PERCENT:
        return words
    change = round(100 * (Decimal(str(value)) / Decimal(str(before)) - 1))
    if change == 0:
        return f"{words}, as now"
    sign = "+" if change > 0 else "\N{MINUS SIGN}"
    return f"{words}, {sign}{figures.compact(abs(change), PERCENT)}"
