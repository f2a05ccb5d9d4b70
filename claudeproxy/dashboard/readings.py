"""Asks the reports of usage for what one page shows, and for no more."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from claudeproxy.charts import Step
from claudeproxy.dashboard.spans import Span
from usage import reports
from usage.days import Days
from usage.outcome import Outcome
from usage.reports import By, Line, Only


@dataclass(frozen=True)
class Totals:
    """What requests come to, and how many of them ended in which way."""

    line: Line
    outcomes: Mapping[str, int]

    def count(self, outcome: Outcome) -> int:
        return self.outcomes.get(outcome.value, 0)


@dataclass(frozen=True)
class Readings:
    """What was used in a span: in its buckets, in all, before it, and by whom."""

    buckets: Mapping[datetime, Totals]
    total: Totals
    before: Totals
    by: Mapping[By, tuple[Line, ...]]


def read(span: Span, only: Only, by: Iterable[By]) -> Readings:
    """Read what was used, in a number of queries that depends on *by* alone."""
    step = _step_of(span)
    since, until = span.since, span.until
    outcomes = reports.counts_by_outcome(step, since, until, only)
    return Readings(
        buckets={
            _start(line.group): Totals(line, outcomes.get(line.group, {}))
            for line in reports.grouped(step, since, until, only)
        },
        total=Totals(reports.total(since, until, only), _sum(outcomes.values())),
        before=_read_total(*span.before, only),
        by={
            it: tuple(reports.grouped(it, since, until, only, has_latency=False))
            for it in by
        },
    )


def _step_of(span: Span) -> By | Days:
    if span.choice.step == Step.HOUR:
        return By.HOUR
    days = Days(span.buckets.starts)
    # For these there are sums.
    return By.DAY if days.are_of_utc(span.until) else days


def _read_total(since: datetime, until: datetime, only: Only) -> Totals:
    outcomes = reports.counts_by_outcome(None, since, until, only)
    return Totals(reports.total(since, until, only), outcomes.get(None, {}))


def _sum(outcomes: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counts in outcomes:
        total.update(counts)
    return total


def _start(group: datetime | date) -> datetime:
    if isinstance(group, datetime):
        return group
    return datetime.combine(group, time(), UTC)
