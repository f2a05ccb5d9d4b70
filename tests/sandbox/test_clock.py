"""The clock that tests can move."""

from datetime import UTC, datetime, timedelta

import pytest

from claudeproxy.sandbox.accounts import Caller
from claudeproxy.sandbox.clock import Clock
from claudeproxy.sandbox.errors import ControlError
from claudeproxy.sandbox.state import Sandbox

INSTANT = timedelta(seconds=5)


def is_about(clock: Clock, moment: datetime) -> bool:
    return abs(clock.now() - moment) < INSTANT


def test_it_tells_real_time_at_first() -> None:
    assert is_about(Clock(), datetime.now(UTC))


@pytest.mark.parametrize("by", [3600, 3600.0, timedelta(hours=1)])
def test_it_can_be_advanced(by: float | timedelta) -> None:
    clock = Clock()
    clock.advance(by)
    assert is_about(clock, datetime.now(UTC) + timedelta(hours=1))


def test_moves_add_up_and_may_go_back() -> None:
    clock = Clock()
    clock.advance(100)
    clock.advance(-40)
    assert is_about(clock, datetime.now(UTC) + timedelta(seconds=60))


def test_it_can_be_set_and_runs_on_from_there() -> None:
    clock = Clock()
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    clock.set(moment)
    assert moment <= clock.now() < moment + INSTANT


def test_seconds_and_moments_agree() -> None:
    clock = Clock()
    clock.advance(1000)
    assert is_about(clock, datetime.fromtimestamp(clock.timestamp(), UTC))


def test_it_can_be_restored() -> None:
    clock = Clock()
    clock.advance(3600)
    clock.restore()
    assert is_about(clock, datetime.now(UTC))


@pytest.mark.parametrize("by", [1e18, -1e18, float("inf"), float("nan")])
def test_it_does_not_leave_the_calendar(by: float) -> None:
    clock = Clock()
    with pytest.raises(ControlError, match="that far"):
        clock.advance(by)
    assert is_about(clock, datetime.now(UTC))


def test_a_moment_needs_a_time_zone() -> None:
    with pytest.raises(ControlError, match="time zone"):
        Clock().set(datetime(2030, 1, 1))  # noqa: DTZ001  # what is tested


def test_the_log_goes_by_it() -> None:
    sandbox = Sandbox()
    sandbox.clock.set(datetime(2030, 1, 1, tzinfo=UTC))
    entry = sandbox.log.arrive(
        Caller(None, [], []), request_id="req_1", method="GET", path="/", query=""
    )
    assert entry.at.year == 2030


def test_a_reset_of_the_sandbox_restores_it() -> None:
    sandbox = Sandbox()
    sandbox.clock.advance(3600)
    sandbox.reset()
    assert is_about(sandbox.clock, datetime.now(UTC))
