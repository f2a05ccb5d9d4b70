"""Charts as shapes: what numbers over time, or numbers by name, look like.

A value may be None: nothing was measured. What is not finite counts as None; what is
negative is drawn as 0 and told as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from decimal import Decimal
from enum import Enum
from functools import cached_property
from itertools import groupby

from claudeproxy import figures
from claudeproxy.figures import Kind, Unit, Value
from claudeproxy.shapes import (
    Bar,
    Chart,
    Column,
    Dot,
    Key,
    Label,
    Line,
    Look,
    Mark,
    RankedEntry,
    Ranking,
    Row,
    Sparkline,
)

_EMPTY = "Nothing was recorded in this time."
_NO_VALUE = "none"

_BAR_SHARE = 0.76
_WIDEST_BAR = 10.0
# More dots than these hide the line.
_MOST_DOTS = 31
_MOST_LABELS = 9
_MOST_LABELS_IF_NARROW = 4
# Each divides the next, so that the labels of a narrow chart are some of a wide one's.
_DAY_STRIDES = tuple(1 << power for power in range(13))
_HOUR_STRIDES = (1, 3, 6, 12, *(24 * days for days in _DAY_STRIDES))

_LOOKS_IN_TURN = (Look.ONE, Look.TWO, Look.THREE, Look.FOUR, Look.FIVE, Look.SIX)
_RISING = "M-2 2L2 -2M0 8L8 0M6 10L10 6"
_FALLING = "M-2 6L2 10M0 0L8 8M6 -2L10 2"
_DOTTED = "M2 2h.1M6 6h.1"
_UPRIGHT = "M4 0V8"
_PATTERNS = {
    Look.ONE: "",
    Look.TWO: _RISING,
    Look.THREE: _DOTTED,
    Look.FOUR: _FALLING,
    Look.FIVE: _UPRIGHT,
    Look.SIX: "M0 4H8M4 0V8",
    Look.GOOD: "",
    Look.WARNING: _RISING,
    Look.BAD: "M0 0L8 8M0 8L8 0",
    Look.IDLE: _UPRIGHT,
}


class Step(Enum):
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True)
class Buckets:
    """Spans of time, one after the other, by their beginnings; told in *tz*."""

    starts: tuple[datetime, ...]
    step: Step
    tz: tzinfo

    def __post_init__(self) -> None:
        if any(start.tzinfo is None for start in self.starts):
            raise ValueError("a bucket begins at an aware time")

    @cached_property
    def local(self) -> tuple[datetime, ...]:
        return tuple(start.astimezone(self.tz) for start in self.starts)

    @cached_property
    def names(self) -> tuple[str, ...]:
        if self.step == Step.DAY:
            return tuple(f"{at:%Y-%m-%d}" for at in self.local)
        return tuple(f"{at:%Y-%m-%d %H:%M} {at.tzname()}" for at in self.local)


@dataclass(frozen=True)
class Series:
    """A value for each bucket; without a look of its own, it gets one by its place."""

    name: str
    values: tuple[Value | None, ...]
    look: Look | None = None


@dataclass(frozen=True)
class Entry:
    """A line of a ranking, with the address of its page if it has one.

    The rest are those without a line of their own: it comes last, however much it is.
    """

    name: str
    value: Value
    url: str = ""
    is_rest: bool = False


_Values = tuple[Decimal | None, ...]


@dataclass(frozen=True)
class _Drawn:
    """A series ready to be drawn."""

    name: str
    values: _Values
    look: Look


def bars(
    id: str, title: str, unit: Unit, buckets: Buckets, series: Sequence[Series]
) -> Chart:
    """Draw a bar for each bucket, those of several series on top of each other.

    Errors: ValueError if a series has not one value for each bucket.
    """
    drawn = _prepare(buckets, series)
    totals = tuple(map(_add, zip(*(it.values for it in drawn), strict=True)))
    if all(total is None for total in totals):
        return Chart(id, title, _EMPTY)
    chart = _frame(Chart(id, title, ""), unit, buckets, drawn, totals)
    if len(drawn) > 1:
        chart = replace(
            chart,
            head=(*chart.head, "total"),
            rows=tuple(
                replace(row, cells=(*row.cells, _exact(total, unit)))
                for row, total in zip(chart.rows, totals, strict=True)
            ),
        )
    return replace(
        chart,
        summary=_describe_totals(unit, buckets, totals),
        value_axis=f"{unit.noun} per {buckets.step.value}",
        keys=_keys(drawn, [_compact(_add(it.values), unit) for it in drawn]),
        bars=tuple(_stack(chart, drawn, _top_of(unit, totals))),
    )


def lines(
    id: str,
    title: str,
    unit: Unit,
    buckets: Buckets,
    series: Sequence[Series],
    *,
    has_band: bool = False,
) -> Chart:
    """Draw a line for each series, broken where there is no value.

    With a band, what is between the first and the last series is shaded.
    Errors: ValueError if a series has not one value for each bucket.
    """
    drawn = _prepare(buckets, series)
    found = tuple(value for it in drawn for value in it.values)
    if all(value is None for value in found):
        return Chart(id, title, _EMPTY)
    chart = _frame(Chart(id, title, ""), unit, buckets, drawn, found)
    top = _top_of(unit, found)
    latest = max(
        place
        for place in range(len(buckets.starts))
        if any(it.values[place] is not None for it in drawn)
    )
    return replace(
        chart,
        summary=f"At the end ({buckets.names[latest]}): "
        + ", ".join(f"{it.name} {_compact(it.values[latest], unit)}" for it in drawn),
        value_axis=unit.noun,
        keys=_keys(drawn, [""] * len(drawn)),
        bands=(
            tuple(_bands(chart, drawn[0].values, drawn[-1].values, top))
            if has_band
            else ()
        ),
        lines=tuple(
            Line(" ".join(points), it.look)
            for it in drawn
            for points in _runs(chart, it.values, top)
            if len(points) > 1
        ),
        dots=tuple(dot for it in drawn for dot in _dots(chart, it, top)),
    )


def ranking(id: str, title: str, unit: Unit, entries: Sequence[Entry]) -> Ranking:
    """Put names in the order of their values, each with a bar."""
    values = [(figures.to_decimal(entry.value), entry) for entry in entries]
    known = [(value, entry) for value, entry in values if value is not None]
    known.sort(key=lambda pair: (pair[1].is_rest, -pair[0]))
    highest = max((value for value, _ in known), default=Decimal(0))
    total = sum((value for value, _ in known), Decimal(0))
    return Ranking(
        id=id,
        title=title,
        unit=unit.noun,
        entries=tuple(
            RankedEntry(
                name=entry.name,
                url=entry.url,
                width=_part(value, highest) * 100,
                text=figures.compact(value, unit),
                exact=figures.exact(value, unit),
                share=_share(value, total) if unit.adds_up else "",
            )
            for value, entry in known
        ),
        empty=_EMPTY,
    )


def sparkline(label: str, unit: Unit, values: Sequence[Value | None]) -> Sparkline:
    """Draw how something went, without axes; *label* says what it is."""
    found = tuple(map(figures.to_decimal, values))
    known = [value for value in found if value is not None]
    if not known:
        return Sparkline(f"{label}: {_NO_VALUE}", ())
    words = (
        f"{label}: from {_compact(min(known), unit)} to {_compact(max(known), unit)}, "
        f"at the end {_compact(known[-1], unit)}"
    )
    line = Sparkline(words, ())
    inner = line.height - 4  # the stroke is not cut at the edges
    span = max(len(found) - 1, 1)
    points = [
        None
        if value is None
        else (
            place * line.width / span,
            2 + inner * (1 - _part(value, max(known))),
        )
        for place, value in enumerate(found)
    ]
    if len(found) == 1:
        points = [*points, (float(line.width), points[0][1] if points[0] else 0.0)]
    return replace(line, lines=tuple(map(" ".join, _written_runs(points))))


def _prepare(buckets: Buckets, series: Sequence[Series]) -> tuple[_Drawn, ...]:
    for it in series:
        if len(it.values) != len(buckets.starts):
            raise ValueError(f"{it.name} has not one value for each bucket")
    return tuple(
        _Drawn(
            it.name,
            tuple(map(figures.to_decimal, it.values)),
            it.look or _LOOKS_IN_TURN[place % len(_LOOKS_IN_TURN)],
        )
        for place, it in enumerate(series)
    )


def _frame(
    chart: Chart,
    unit: Unit,
    buckets: Buckets,
    drawn: Sequence[_Drawn],
    values: _Values,
) -> Chart:
    """The chart with all that does not depend on how its values are drawn."""
    steps = _steps(unit, values)
    width = 100 / len(buckets.starts)
    rows = tuple(
        Row(name, tuple(_exact(it.values[place], unit) for it in drawn))
        for place, name in enumerate(buckets.names)
    )
    return replace(
        chart,
        time_axis=f"{buckets.step.value}s, {buckets.tz}",
        marks=tuple(
            Mark(figures.compact(step, unit), _y(chart, step, steps[-1]))
            for step in steps
        ),
        labels=tuple(_labels(buckets)),
        columns=tuple(
            Column(
                x=_rounded(place * width),
                width=_rounded(width),
                text="\n".join(
                    [
                        row.name,
                        *(
                            f"{it.name}: {cell}"
                            for it, cell in zip(drawn, row.cells, strict=True)
                        ),
                    ]
                ),
            )
            for place, row in enumerate(rows)
        ),
        head=(buckets.step.value, *(it.name for it in drawn)),
        rows=rows,
    )


def _keys(drawn: Sequence[_Drawn], texts: Sequence[str]) -> tuple[Key, ...]:
    return tuple(
        Key(it.name, it.look, _PATTERNS[it.look], text)
        for it, text in zip(drawn, texts, strict=True)
    )


def _describe_totals(unit: Unit, buckets: Buckets, totals: _Values) -> str:
    peak, place = max(
        (total, -place) for place, total in enumerate(totals) if total is not None
    )
    most = f"most {_compact(peak, unit)} ({buckets.names[-place]})"
    if not unit.adds_up:
        return f"At {most}"
    return f"{_compact(_add(totals), unit)} in all, at {most}"


# --- bars


def _stack(chart: Chart, drawn: Sequence[_Drawn], top: Decimal) -> Iterator[Bar]:
    slot = 100 / len(drawn[0].values)
    width = min(slot * _BAR_SHARE, _WIDEST_BAR)
    for place in range(len(drawn[0].values)):
        y = float(chart.baseline)
        for it in drawn:
            value = it.values[place]
            if value is None or value <= 0:
                continue
            # However small, it is seen; and neighbours do not touch.
            height = max(_part(value, top) * chart.plot, 1.0)
            y -= height
            gap = 1.0 if height > 3 and y + height < chart.baseline else 0.0
            yield Bar(
                x=_rounded(place * slot + (slot - width) / 2),
                y=_rounded(y),
                width=_rounded(width),
                height=_rounded(height - gap),
                look=it.look,
            )


# --- lines


def _runs(chart: Chart, values: _Values, top: Decimal) -> list[list[str]]:
    """Points of each stretch of a line that has no hole."""
    slot = chart.line_width / len(values)
    return _written_runs(
        [
            None
            if value is None
            else ((place + 0.5) * slot, chart.plot * (1 - _part(value, top)))
            for place, value in enumerate(values)
        ]
    )


def _written_runs(points: Sequence[tuple[float, float] | None]) -> list[list[str]]:
    return [
        [f"{_rounded(x)},{_rounded(y)}" for x, y in filter(None, run)]
        for has_value, run in groupby(points, lambda point: point is not None)
        if has_value
    ]


def _bands(chart: Chart, low: _Values, high: _Values, top: Decimal) -> Iterator[str]:
    both = [a is not None and b is not None for a, b in zip(low, high, strict=True)]

    def within(values: _Values) -> _Values:
        return tuple(v if has else None for v, has in zip(values, both, strict=True))

    edges = zip(
        _runs(chart, within(low), top), _runs(chart, within(high), top), strict=True
    )
    for below, above in edges:
        if len(below) > 1:
            yield " ".join([*below, *reversed(above)])


def _dots(chart: Chart, drawn: _Drawn, top: Decimal) -> Iterator[Dot]:
    """A dot on every point; if they are many, only where no line leads."""
    values = drawn.values
    around = (None, *values, None)
    slot = 100 / len(values)
    for place, value in enumerate(values):
        if value is None:
            continue
        is_alone = around[place] is None and around[place + 2] is None
        if is_alone or len(values) <= _MOST_DOTS:
            x = _rounded((place + 0.5) * slot)
            yield Dot(x, _y(chart, value, top), drawn.look)


# --- the axes


def _steps(unit: Unit, values: _Values) -> tuple[Decimal, ...]:
    highest = max((value for value in values if value is not None), default=Decimal(0))
    return figures.round_steps(highest, whole=unit.kind == Kind.COUNT)


def _top_of(unit: Unit, values: _Values) -> Decimal:
    return _steps(unit, values)[-1]


def _labels(buckets: Buckets) -> Iterator[Label]:
    slot = 100 / len(buckets.starts)
    stride = _label_stride(buckets, _MOST_LABELS)
    wider = _label_stride(buckets, _MOST_LABELS_IF_NARROW)
    for place, at in enumerate(buckets.local):
        if not _is_on(at, buckets.step, stride):
            continue
        is_hour = buckets.step == Step.HOUR and at.hour
        yield Label(
            text=f"{at:%H:%M}" if is_hour else f"{at.day} {at:%b}",
            x=_rounded((place + 0.5) * slot),
            is_minor=not _is_on(at, buckets.step, wider),
        )


def _label_stride(buckets: Buckets, most: int) -> int:
    strides = _HOUR_STRIDES if buckets.step == Step.HOUR else _DAY_STRIDES
    return next(
        (
            stride
            for stride in strides
            if sum(_is_on(at, buckets.step, stride) for at in buckets.local) <= most
        ),
        strides[-1],
    )


def _is_on(at: datetime, step: Step, stride: int) -> bool:
    """Whether a time is one of the round ones, *stride* steps apart."""
    if step == Step.DAY:
        return at.toordinal() % stride == 0
    if at.fold:
        return False  # an hour that comes twice is named once
    if stride < 24:
        return at.hour % stride == 0
    return at.hour == 0 and at.toordinal() % (stride // 24) == 0


def _y(chart: Chart, value: Decimal, top: Decimal) -> float:
    return _rounded(chart.baseline - _part(value, top) * chart.plot)


# --- numbers


def _add(values: Sequence[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return sum(known, Decimal(0)) if known else None


def _part(value: Decimal, whole: Decimal) -> float:
    return min(max(float(value / whole), 0.0), 1.0) if whole > 0 else 0.0


def _share(value: Decimal, total: Decimal) -> str:
    return figures.compact(round(_part(value, total) * 100), figures.PERCENT)


def _rounded(number: float) -> float:
    return round(number, 2)


def _compact(value: Decimal | None, unit: Unit) -> str:
    return _NO_VALUE if value is None else figures.compact(value, unit)


def _exact(value: Decimal | None, unit: Unit) -> str:
    return _NO_VALUE if value is None else figures.exact(value, unit)
