import pytest

from claudeproxy.supervisor import Child, Role, delay_before_restart
from claudeproxy.watchdog import Pulse


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (9, 25.6), (10, 30.0), (5000, 30.0)],
)
def test_the_delay_grows_to_half_a_minute(failures, seconds):
    assert delay_before_restart(failures) == pytest.approx(seconds)


def child(**fields: float) -> Child:
    return Child(Role("web", lambda: 0), pid=7, **fields)  # type: ignore[arg-type]


def test_a_child_that_dies_young_waits_longer_each_time():
    unlucky = child(started_at=100.0)
    assert unlucky.note_end(101.0) == pytest.approx(0.1)
    assert unlucky.note_end(102.0) == pytest.approx(0.2)
    assert unlucky.pid is None
    assert unlucky.due_at == pytest.approx(102.2)


def test_a_child_that_lived_a_while_is_back_at_once():
    assert child(started_at=100.0, failures=8).note_end(110.0) == pytest.approx(0.1)


def looks(pulse: Pulse, findings: str) -> list[bool]:
    return [pulse.has_stopped(finding) for finding in findings]


def test_a_pulse_that_changes_has_not_stopped():
    assert not any(looks(Pulse(2), "abcabcabc"))


def test_a_pulse_has_stopped_after_so_many_looks_without_a_change():
    assert looks(Pulse(3), "aaaa") == [False, False, False, True]


def test_a_change_at_the_last_moment_counts():
    assert looks(Pulse(3), "aaabbb") == [False] * 6


def test_a_cluster_that_never_succeeds_has_no_pulse():
    pulse = Pulse(2)
    assert [pulse.has_stopped("") for _ in range(3)] == [False, False, True]


def test_a_restarted_cluster_is_granted_the_whole_limit():
    pulse = Pulse(3)
    looks(pulse, "aaa")
    pulse.restart()
    assert looks(pulse, "aaa") == [False, False, True]
