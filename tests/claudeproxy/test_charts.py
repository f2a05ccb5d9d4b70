"""Where the shapes of a chart go, and what is told of them."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy import charts
from claudeproxy.charts import Buckets, Entry, Series, Step
from claudeproxy.figures import DOLLARS, MILLISECONDS, PERCENT, REQUESTS, TOKENS
from claudeproxy.shapes import Look
from tests.claudeproxy import chart_examples

START = datetime(2026, 3, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def hours(count: int, start: datetime = START, tz=UTC) -> Buckets:
    starts = tuple(start + timedelta(hours=number) for number in range(count))
    return Buckets(starts, Step.HOUR, tz)


def days(count: int) -> Buckets:
    starts = tuple(START + timedelta(days=number) for number in range(count))
    return Buckets(starts, Step.DAY, UTC)


def bars(*series: Series, buckets: Buckets | None = None, unit=REQUESTS):
    buckets = buckets or hours(len(series[0].values))
    return charts.bars("id", "Title", unit, buckets, series)


def lines(*series: Series, **options):
    buckets = hours(len(series[0].values))
    return charts.lines("id", "Title", MILLISECONDS, buckets, series, **options)


def plain(text: str) -> str:
    return text.replace("\xa0", " ")


# --- time


def test_times_are_told_in_the_zone_that_is_asked_for() -> None:
    chart = bars(Series("all", (1, 2)), buckets=hours(2, tz=BERLIN))
    assert [row.name for row in chart.rows] == [
        "2026-03-01 01:00 CET",
        "2026-03-01 02:00 CET",
    ]
    assert chart.time_axis == "hours, Europe/Berlin"


def test_the_hour_that_comes_twice_has_two_names() -> None:
    buckets = hours(2, datetime(2026, 10, 25, 0, tzinfo=UTC), BERLIN)
    assert buckets.names == ("2026-10-25 02:00 CEST", "2026-10-25 02:00 CET")


@pytest.mark.parametrize(
    ("zone", "start", "count", "shown"),
    [
        ("Europe/Berlin", "2026-10-24T22Z", 5, ["25 Oct", "01:00", "02:00", "03:00"]),
        ("Atlantic/Azores", "2026-10-24T23Z", 4, ["23:00", "25 Oct", "01:00"]),
    ],
)
def test_an_hour_that_comes_twice_is_named_once_below_the_chart(
    zone: str, start: str, count: int, shown: list[str]
) -> None:
    buckets = hours(count, datetime.fromisoformat(start), ZoneInfo(zone))
    chart = bars(Series("all", (1,) * count), buckets=buckets)
    assert [label.text for label in chart.labels] == shown
    assert len({row.name for row in chart.rows}) == count


def test_hours_are_told_to_the_minute_where_a_zone_is_half_an_hour_off() -> None:
    buckets = hours(3, datetime(2026, 11, 25, 17, tzinfo=UTC), ZoneInfo("Asia/Kolkata"))
    assert buckets.names == (
        "2026-11-25 22:30 IST",
        "2026-11-25 23:30 IST",
        "2026-11-26 00:30 IST",
    )
    chart = bars(Series("all", (1, 2, 3)), buckets=buckets)
    assert [label.text for label in chart.labels] == ["22:30", "23:30", "26 Nov"]


def test_a_bucket_needs_an_aware_time() -> None:
    with pytest.raises(ValueError, match="aware"):
        Buckets((datetime(2026, 3, 1),), Step.DAY, UTC)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("buckets", "shown", "shown_if_narrow"),
    [
        (hours(3), ["1 Mar", "01:00", "02:00"], ["1 Mar", "01:00", "02:00"]),
        (
            hours(24),
            [
                *("1 Mar", "03:00", "06:00", "09:00"),
                *("12:00", "15:00", "18:00", "21:00"),
            ],
            ["1 Mar", "06:00", "12:00", "18:00"],
        ),
        (
            hours(72),
            ["1 Mar", "12:00", "2 Mar", "12:00", "3 Mar", "12:00"],
            ["1 Mar", "2 Mar", "3 Mar"],
        ),
        (days(3), ["1 Mar", "2 Mar", "3 Mar"], ["1 Mar", "2 Mar", "3 Mar"]),
    ],
)
def test_round_times_are_named(buckets, shown, shown_if_narrow) -> None:
    chart = bars(Series("all", (1,) * len(buckets.starts)), buckets=buckets)
    assert [label.text for label in chart.labels] == shown
    few = [label.text for label in chart.labels if not label.is_minor]
    assert few == shown_if_narrow


@pytest.mark.parametrize("count", [1, 7, 30, 90, 365, 4000])
def test_there_is_room_for_the_names_of_times(count: int) -> None:
    for buckets in (hours(count), days(count)):
        chart = bars(Series("all", (1,) * count), buckets=buckets)
        assert 1 <= len(chart.labels) <= 9
        assert 1 <= len([it for it in chart.labels if not it.is_minor]) <= 4


# --- bars


def test_bars_are_as_high_as_their_values() -> None:
    chart = bars(Series("all", (10, 5, 0)))
    assert [mark.text for mark in chart.marks] == ["0", "5", "10"]
    assert [bar.height for bar in chart.bars] == [chart.plot, chart.plot / 2]
    assert all(bar.y + bar.height == chart.baseline for bar in chart.bars)


def test_stacked_bars_stand_on_each_other_with_a_gap() -> None:
    low, high = bars(Series("a", (6,)), Series("b", (4,))).bars
    assert (low.look, high.look) == (Look.ONE, Look.TWO)
    assert low.y - (high.y + high.height) == pytest.approx(1)
    assert high.y == 10


def test_the_smallest_value_can_be_seen() -> None:
    chart = bars(Series("all", (1, 10**12)))
    assert chart.bars[0].height == 1


def test_a_stack_has_totals_in_its_table() -> None:
    chart = bars(Series("a", (6, None)), Series("b", (4, None)))
    assert chart.head == ("hour", "a", "b", "total")
    assert [row.cells for row in chart.rows] == [
        ("6", "4", "10"),
        ("none", "none", "none"),
    ]


def test_a_single_bar_does_not_fill_the_chart() -> None:
    (bar,) = bars(Series("all", (7,))).bars
    assert bar.width == 10
    assert bar.x == 45


def test_bars_are_summed_up_in_words() -> None:
    chart = bars(Series("all", (12_000, 1_300_000)), unit=TOKENS)
    assert plain(chart.summary) == (
        "1.31 M in all, at most 1.3 M (2026-03-01 01:00 UTC)"
    )
    assert chart.value_axis == "tokens per hour"


def test_the_first_of_equal_peaks_is_named() -> None:
    assert "00:00" in bars(Series("all", (5, 5))).summary


def test_what_does_not_add_up_is_not_added() -> None:
    chart = bars(Series("all", (40, 60)), unit=PERCENT)
    assert plain(chart.summary) == "At most 60 % (2026-03-01 01:00 UTC)"


def test_every_bucket_says_its_values() -> None:
    chart = bars(Series("a", (6, 1)), Series("b", (4, None)))
    assert [column.text for column in chart.columns] == [
        "2026-03-01 00:00 UTC\na: 6\nb: 4",
        "2026-03-01 01:00 UTC\na: 1\nb: none",
    ]
    assert [column.x for column in chart.columns] == [0, 50]


def test_zeros_are_an_answer_and_nothing_is_another() -> None:
    zeros = bars(Series("all", (0, 0)))
    assert zeros.rows
    assert zeros.bars == ()
    assert zeros.summary.startswith("0 in all")
    for values in ((), (None, None)):
        nothing = bars(Series("all", values), buckets=hours(len(values)))
        assert nothing.rows == ()
        assert nothing.summary == "Nothing was recorded in this time."


def test_a_chart_of_no_series_is_empty() -> None:
    assert charts.bars("id", "Title", REQUESTS, hours(2), []).rows == ()
    assert charts.lines("id", "Title", REQUESTS, hours(2), []).rows == ()


def test_a_series_has_a_value_for_each_bucket() -> None:
    with pytest.raises(ValueError, match="limited"):
        bars(Series("limited", (1, 2, 3)), buckets=hours(2))


# --- lines


def test_a_line_is_broken_where_nothing_was_measured() -> None:
    chart = lines(Series("p50", (10, 20, None, 20, 10)))
    assert [line.points for line in chart.lines] == [
        "100.0,80.0 300.0,0.0",
        "700.0,0.0 900.0,80.0",
    ]


def test_a_point_alone_is_a_dot() -> None:
    chart = lines(Series("p50", (None, 20, None)))
    assert chart.lines == ()
    assert [(dot.x, dot.y) for dot in chart.dots] == [(50.0, chart.top)]


def test_a_long_line_has_dots_only_where_it_is_none() -> None:
    values = (*range(40), None, 3, None)
    chart = lines(Series("p50", values))
    assert len(chart.dots) == 1


def test_a_band_is_between_the_outer_lines() -> None:
    chart = lines(
        Series("p50", (0, 0, 0, None)),
        Series("p95", (5, 5, 5, 5)),
        Series("p99", (10, 10, None, 10)),
        has_band=True,
    )
    assert chart.bands == ("125.0,160.0 375.0,160.0 375.0,0.0 125.0,0.0",)


def test_lines_are_summed_up_by_their_last_values() -> None:
    chart = lines(
        Series("p50", (350, 400, None, None)), Series("p95", (1200, None, 1400, None))
    )
    assert plain(chart.summary) == (
        "At the end (2026-03-01 02:00 UTC): p50 none, p95 1.4 s"
    )


# --- rankings and sparklines


def test_a_ranking_puts_the_most_first() -> None:
    ranking = charts.ranking(
        "id",
        "Top keys",
        DOLLARS,
        [Entry("ada", 1, "/ada/"), Entry("grace", 3), Entry("odd", float("nan"))],
    )
    first, second = ranking.entries
    assert (first.name, first.width, first.text) == ("grace", 100, "$3")
    assert plain(first.share) == "75 %"
    assert (second.url, round(second.width)) == ("/ada/", 33)


def test_a_ranking_of_zeros_has_no_bars() -> None:
    (entry,) = charts.ranking("id", "Top", TOKENS, [Entry("ada", 0)]).entries
    assert entry.width == 0
    assert plain(entry.share) == "0 %"


def test_times_have_no_share_of_a_whole() -> None:
    (entry,) = charts.ranking("id", "Slowest", MILLISECONDS, [Entry("a", 5)]).entries
    assert entry.share == ""


def test_a_sparkline_says_in_words_what_it_shows() -> None:
    line = charts.sparkline("Requests", REQUESTS, (3, 80, None, 12))
    assert line.label == "Requests: from 3 to 80, at the end 12"
    assert len(line.lines) == 2
    assert charts.sparkline("Requests", REQUESTS, (None,)).label == "Requests: none"


def test_a_sparkline_of_one_value_is_level() -> None:
    assert charts.sparkline("All", REQUESTS, (5,)).lines == ("0.0,2.0 100.0,2.0",)


# --- whatever comes


ANY_VALUE = st.none() | st.integers(-5, 10**15) | st.floats()


@given(st.lists(st.tuples(ANY_VALUE, ANY_VALUE), max_size=40))
def test_shapes_stay_within_the_chart_whatever_the_values(rows) -> None:
    series = [
        Series("a", tuple(a for a, _ in rows)),
        Series("b", tuple(b for _, b in rows)),
    ]
    buckets = hours(len(rows))
    stacked = charts.bars("id", "Title", TOKENS, buckets, series)
    for bar in stacked.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= 100.01
        assert 0 <= bar.y <= bar.y + bar.height <= stacked.baseline + 0.01
    drawn = charts.lines("id", "Title", TOKENS, buckets, series, has_band=True)
    points = " ".join([*drawn.bands, *(line.points for line in drawn.lines)])
    for x, y in (point.split(",") for point in points.split()):
        assert 0 <= float(x) <= drawn.line_width
        assert 0 <= float(y) <= drawn.plot


# --- the page


def test_what_is_printed_holds_no_markup_of_a_name_and_no_style() -> None:
    page = chart_examples.page()
    assert not re.search(r"<style|\sstyle=|nan|inf[^o]", page.lower())
    name = "<b>key</b> of Ada"
    from_name = chart_examples.render(
        charts=[bars(Series(name, (1,)), Series("b", (1,)))],
        rankings=[charts.ranking("top", name, TOKENS, [Entry(name, 1)])],
        sparklines=[charts.sparkline(name, TOKENS, (1, 2))],
    )
    assert "<b>" not in from_name
    assert "&lt;b&gt;key" in from_name


def test_ids_of_a_page_are_unique() -> None:
    ids = re.findall(r'\sid="([^"]+)"', chart_examples.page())
    assert len(ids) == len(set(ids))


def test_the_rest_comes_last_in_a_ranking_however_much_it_is() -> None:
    ranking = charts.ranking(
        "keys",
        "Keys",
        REQUESTS,
        [Entry("3 others", 90, is_rest=True), Entry("bob", 4), Entry("alice", 6)],
    )
    assert [entry.name for entry in ranking.entries] == ["alice", "bob", "3 others"]
    assert [entry.width for entry in ranking.entries][-1] == 100
    assert [entry.share for entry in ranking.entries] == [
        "6\N{NO-BREAK SPACE}%",
        "4\N{NO-BREAK SPACE}%",
        "90\N{NO-BREAK SPACE}%",
    ]
