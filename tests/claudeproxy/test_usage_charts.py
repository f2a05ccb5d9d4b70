"""Tiles and charts of what was used, from given figures."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from claudeproxy.charts import Buckets, Step
from claudeproxy.dashboard import usage_charts
from claudeproxy.dashboard.readings import Readings, Totals
from claudeproxy.dashboard.usage_charts import Named, Tile
from claudeproxy.shapes import Chart, Look
from usage.reports import Latency, Line

START = datetime(2026, 11, 25, 10, tzinfo=UTC)
BUCKETS = Buckets(tuple(START + timedelta(hours=it) for it in range(3)), Step.HOUR, UTC)


def totals(outcomes: Mapping[str, int], **fields: Any) -> Totals:
    return Totals(Line(requests=sum(outcomes.values()), **fields), outcomes)


NOTHING = totals({})
SOME = totals(
    {"served": 90, "refused": 6, "failed": 3, "gone": 1},
    input_tokens=1000,
    write_5m_tokens=500,
    write_1h_tokens=500,
    read_tokens=6000,
    output_tokens=2000,
    cost=Decimal("2.5"),
    notional_cost=Decimal("1.5"),
    unpriced=7,
    first_byte=Latency(100.0, 900.0, 1200.0),
    duration=Latency(1000.0, 9000.0, 12000.0),
)
FEWER = totals(
    {"served": 50},
    output_tokens=5000,
    cost=Decimal(5),
    first_byte=Latency(100.0, 900.0, 1200.0),
)


def readings(total: Totals = SOME, before: Totals = NOTHING) -> Readings:
    return Readings(buckets={START: total}, total=total, before=before, by={})


def tiles(**fields: Totals) -> dict[str, Tile]:
    made = usage_charts.tiles(readings(**fields), BUCKETS)
    return {tile.name: tile for tile in made}


def charts(total: Totals = SOME) -> dict[str, Chart]:
    made = usage_charts.over_time(readings(total), BUCKETS)
    return {chart.id: chart for chart in made}


def plain(text: str) -> str:
    return text.replace("\xa0", " ")


# --- tiles


@pytest.mark.parametrize(
    ("name", "value", "notes"),
    [
        ("Requests", "100", ("1 caller gone",)),
        ("Error rate", "3 %", ("3 failed", "6 refused")),
        ("Tokens", "10 k", ("75 % from the cache",)),
        ("Cost", "$2.50", ("$1.50 of it notional", "7 requests unpriced")),
        ("First byte, p95", "900 ms", ("p99 1.2 s",)),
    ],
)
def test_a_tile_says_a_figure_and_what_belongs_to_it(
    name: str, value: str, notes: tuple[str, ...]
) -> None:
    tile = tiles()[name]
    assert plain(tile.value) == value
    assert tuple(map(plain, tile.notes)) == notes


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("Requests", "50 before, +100 %"),
        ("Error rate", "0 % before"),
        ("Tokens", "5,000 before, +100 %"),
        ("Cost", "$5 before, \N{MINUS SIGN}50 %"),
        ("First byte, p95", "900 ms before, as now"),
    ],
)
def test_a_tile_compares_with_what_was_before(name: str, before: str) -> None:
    assert plain(tiles(before=FEWER)[name].before) == before


def test_a_tile_says_that_there_was_nothing_before() -> None:
    assert {tile.before for tile in tiles().values()} == {"nothing before"}


def test_a_tile_without_a_figure_says_so() -> None:
    refused = totals({"refused": 2})
    assert tiles(total=refused)["First byte, p95"].value == "none"
    assert tiles(total=refused)["Cost"].notes == ()
    assert tiles(total=refused)["Tokens"].notes == ()


def test_the_line_of_a_tile_breaks_where_nothing_was_measured() -> None:
    made = tiles()
    assert "to 100, at the end 0" in made["Requests"].sparkline.label
    assert plain(made["First byte, p95"].sparkline.label).endswith("at the end 900 ms")


# --- charts


def test_requests_are_told_apart_by_how_they_ended() -> None:
    keys = {key.name: (key.look, key.text) for key in charts()["requests"].keys}
    assert keys == {
        "served": (Look.GOOD, "90"),
        "refused": (Look.WARNING, "6"),
        "failed": (Look.BAD, "3"),
        "caller gone": (Look.IDLE, "1"),
    }


def test_errors_have_a_chart_in_which_they_can_be_seen() -> None:
    assert charts()["errors"].rows[0].cells == ("3", "6", "9")


def test_tokens_are_told_apart_by_class() -> None:
    chart = charts()["tokens"]
    assert chart.head[1:] == (
        "input",
        "cache write, 5 min",
        "cache write, 1 h",
        "cache read",
        "output",
        "total",
    )
    assert chart.rows[0].cells == ("1,000", "500", "500", "6,000", "2,000", "10,000")


def test_cost_is_told_apart_by_who_pays() -> None:
    assert charts()["cost"].rows[0].cells == ("$1.00", "$1.50", "$2.50")


def test_latency_has_holes_where_nothing_was_measured() -> None:
    rows = charts()["first-byte"].rows
    assert [plain(cell) for cell in rows[0].cells] == ["100 ms", "900 ms", "1,200 ms"]
    assert rows[1].cells == ("none", "none", "none")
    assert charts()["duration"].rows[0].cells[0] == "1,000\xa0ms"


# --- rankings


def test_a_ranking_adds_up_those_that_it_does_not_name() -> None:
    lines = [
        Named(Line(requests=number, cost=Decimal(20 - number)), f"key {number}")
        for number in range(1, 12)
    ]
    by_cost, by_requests = usage_charts.rankings("keys", lines)
    assert by_cost.title == "Keys by cost"
    assert by_cost.entries[0].name == "key 1"
    assert by_cost.entries[-1].name == "3 others"
    names = {entry.name: entry.text for entry in by_requests.entries}
    assert len(names) == 9
    assert names["3 others"] == "6"
    assert by_requests.id != by_cost.id


def test_a_ranking_that_leaves_one_out_says_so() -> None:
    lines = [Named(Line(requests=number), f"key {number}") for number in range(1, 10)]
    by_cost, _ = usage_charts.rankings("keys", lines)
    assert by_cost.entries[-1].name == "1 other"
