import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy import durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("168h", timedelta(hours=168)),
        ("7d", timedelta(days=7)),
        ("1h30m", timedelta(minutes=90)),
        ("30m1h", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("0s", timedelta()),
        (" 5m ", timedelta(minutes=5)),
        ("1m1m", timedelta(minutes=2)),
    ],
)
def test_a_duration_is_read(text, expected):
    assert durations.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "5", "m", "5 m", "5m 30s", "-5m", "5M", "5min", "5m,", ".5m"),
        *("1e3s", "5.m", "m5", "5mm", "inf", "nan", "5m\n30s"),
    ],
)
def test_anything_else_is_refused_with_the_forms_that_are_read(text):
    with pytest.raises(ValueError, match="500ms, 30s, 5m, 168h or 7d"):
        durations.parse(text)


@pytest.mark.parametrize("text", ["9" * 12 + "d", "9" * 400 + "s"])
def test_a_duration_beyond_every_clock_is_refused(text):
    with pytest.raises(ValueError, match="longer than any clock"):
        durations.parse(text)


@given(text=st.text("0123456789.msdh -+e", max_size=8) | st.text(max_size=8))
def test_no_text_raises_anything_else(text):
    with contextlib.suppress(ValueError):
        assert durations.parse(text) >= timedelta()


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=-5), "0s"),
        (timedelta(milliseconds=400), "0s"),
        (timedelta(seconds=45), "45s"),
        (timedelta(seconds=59.6), "1m"),
        (timedelta(hours=2, minutes=5, seconds=7), "2h 5m"),
        (timedelta(hours=2, seconds=7), "2h 7s"),
        (timedelta(days=7), "7d"),
        (timedelta(days=1, hours=23, minutes=59), "1d 23h"),
    ],
)
def test_a_duration_is_said_in_two_units(span, words):
    assert durations.describe(span) == words
