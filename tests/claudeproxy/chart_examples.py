"""A page with every kind of chart, and with the values that are hard to draw."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.template import engines

from claudeproxy import charts, figures
from claudeproxy.charts import Buckets, Entry, Series, Step
from claudeproxy.figures import DOLLARS, MILLISECONDS, REQUESTS, TOKENS
from claudeproxy.shapes import Chart, Look, Ranking, Sparkline

START = datetime(2026, 3, 1, 5, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")

_PAGE = """
{% extends "admin/base_site.html" %}
{% load static %}
{% block extrahead %}
  {{ block.super }}
  <script src="{% static "claudeproxy/refresh.js" %}" defer></script>
{% endblock extrahead %}
{% block responsive %}
  {{ block.super }}
  <link rel="stylesheet" href="{% static "claudeproxy/charts.css" %}">
{% endblock responsive %}
{% block content %}
  <div class="overview-main">
    {% include "claudeproxy/_refresh_bar.html" %}
    <section class="module" aria-labelledby="charts-heading" data-refresh="charts">
      <h2 id="charts-heading">Charts</h2>
      <div class="charts">
        {% for chart in charts %}
          {% include "claudeproxy/_chart.html" %}
        {% endfor %}
        {% for ranking in rankings %}
          {% include "claudeproxy/_ranking.html" %}
        {% endfor %}
      </div>
      {% for sparkline in sparklines %}
        <p>Key of Ada {% include "claudeproxy/_sparkline.html" %} 12 now</p>
      {% endfor %}
    </section>
  </div>
{% endblock content %}
"""


def hours(count: int, tz: ZoneInfo = BERLIN) -> Buckets:
    return Buckets(
        tuple(START + timedelta(hours=number) for number in range(count)), Step.HOUR, tz
    )


def days(count: int) -> Buckets:
    return Buckets(
        tuple(START + timedelta(days=number) for number in range(count)), Step.DAY, UTC
    )


def wave(count: int, height: float, phase: int = 0) -> tuple[int, ...]:
    """Numbers that go up and down without chance."""
    shape = (2, 1, 0, 1, 3, 6, 9, 14, 18, 17, 12, 15, 19, 20, 16, 11, 8, 5, 7, 4, 3)
    return tuple(
        round(shape[(number + phase) % len(shape)] * height / 20)
        for number in range(count)
    )


def all_charts() -> list[Chart]:
    return [
        charts.bars(
            "requests",
            "Requests",
            REQUESTS,
            hours(24),
            [Series("requests", wave(24, 83))],
        ),
        charts.bars(
            "tokens",
            "Tokens by class",
            TOKENS,
            days(30),
            [
                Series("input", wave(30, 2_000_000)),
                Series("output", wave(30, 900_000, 3)),
                Series("cache write", wave(30, 1_300_000, 5)),
                Series("cache read", wave(30, 2_600_000, 7)),
            ],
        ),
        charts.bars(
            "outcomes",
            "Requests by outcome",
            REQUESTS,
            hours(24),
            [
                Series("answered", wave(24, 83), Look.GOOD),
                Series("limited", wave(24, 20, 9), Look.WARNING),
                Series("failed", wave(24, 12, 4), Look.BAD),
                Series("left by the caller", wave(24, 9, 2), Look.IDLE),
            ],
        ),
        charts.lines(
            "latency",
            "Time to the first byte",
            MILLISECONDS,
            hours(24),
            [
                Series("p50", (*wave(10, 400), None, None, *wave(12, 500))),
                Series("p95", (*wave(10, 1400), None, None, *wave(12, 1500))),
                Series("p99", (*wave(10, 2400), None, None, *wave(12, 3100))),
            ],
            has_band=True,
        ),
        charts.bars(
            "cost",
            "Cost",
            DOLLARS,
            days(7),
            [Series("cost", tuple(Decimal(it) / 7000 for it in wave(7, 30)))],
        ),
        charts.lines(
            "week",
            "Time of a week",
            MILLISECONDS,
            hours(168),
            [Series("p50", wave(168, 350)), Series("p95", wave(168, 900, 2))],
        ),
        charts.bars("one", "One bucket", REQUESTS, hours(1), [Series("all", (7,))]),
        charts.lines("point", "One point", MILLISECONDS, hours(1), [Series("a", (7,))]),
        charts.bars("zero", "Zeros", REQUESTS, hours(12), [Series("all", (0,) * 12)]),
        charts.bars(
            "extremes",
            "Huge and tiny",
            TOKENS,
            days(3),
            [Series("all", (1, 10**12, 3))],
        ),
        charts.bars("empty", "Nothing", REQUESTS, hours(0), [Series("all", ())]),
    ]


def all_rankings() -> list[Ranking]:
    return [
        charts.ranking(
            "keys",
            "Top keys",
            TOKENS,
            [
                Entry("laptop of Grace", 812_000, "/admin/"),
                Entry("a key with a rather long name of many words", 1_204_000),
                Entry("build server", 90_400),
                Entry("others", 1_200),
            ],
        ),
        charts.ranking("nobody", "Top models", DOLLARS, []),
    ]


def all_sparklines() -> list[Sparkline]:
    unit = figures.REQUESTS
    return [
        charts.sparkline("Requests of the day", unit, wave(24, 80)),
        charts.sparkline("Requests of the day", unit, (5, None, 3, 4)),
        charts.sparkline("Requests of the day", unit, ()),
    ]


def render(
    *,
    charts: list[Chart],
    rankings: list[Ranking],
    sparklines: list[Sparkline],
) -> str:
    context = {
        "title": "Examples",
        "site_header": "Claude Proxy",
        "charts": charts,
        "rankings": rankings,
        "sparklines": sparklines,
    }
    return str(engines["django"].from_string(_PAGE).render(context))


def page() -> str:
    return render(
        charts=all_charts(), rankings=all_rankings(), sparklines=all_sparklines()
    )
