from datetime import timedelta

import pytest

from proxy.benches import RATE_LIMITED, Benches
from proxy.errors import LACKS_MODEL, Exclusion
from tests.factories import NOW, pooled

SECOND = timedelta(seconds=1)
ADA, GRACE = pooled(1, name="ada"), pooled(2, name="grace")


@pytest.fixture
def it():
    return Benches()


def why(it, account=ADA, model=None, after=timedelta()):
    found = it.why_not(account, model, NOW + after)
    return found and found.reason


def fail(it, times, account=ADA, since=timedelta()):
    for number in range(times):
        it.fail(account.id, NOW + since + number * 0.1 * SECOND)


def open_circuit(it):
    it.succeed(GRACE.id, NOW)
    fail(it, 3)
    assert why(it)


def test_nothing_speaks_against_an_account_at_first(it):
    assert why(it, model="opus") is None


def test_a_cooldown_ends_by_itself(it):
    until = NOW + 5 * SECOND
    it.cool(ADA.id, until, RATE_LIMITED, until)

    assert it.why_not(ADA, None, NOW) == Exclusion("ada", "rate limited", until)
    assert why(it, GRACE) is None
    assert why(it, after=5 * SECOND) is None


def test_callers_are_told_when_the_account_is_really_back(it):
    it.cool(ADA.id, NOW + SECOND, RATE_LIMITED, NOW + 60 * SECOND)

    assert it.why_not(ADA, None, NOW).until == NOW + 60 * SECOND


def test_a_shorter_cooldown_does_not_end_a_longer_one(it):
    it.cool(ADA.id, NOW + 5 * SECOND, "credential refused")
    it.cool(ADA.id, NOW + SECOND, RATE_LIMITED, NOW + SECOND)

    assert why(it, after=2 * SECOND) == "credential refused"


def test_an_account_that_was_refused_is_nobody_to_wait_for(it):
    it.cool(ADA.id, NOW + SECOND, "credential refused")

    assert not it.why_not(ADA, None, NOW).is_in_use


def test_a_limit_of_a_group_leaves_the_other_groups(it):
    it.cool_group(ADA.id, "claude-opus-4-5-20251101", NOW + SECOND, NOW)

    assert why(it, model="claude-opus-4-8") == "rate limited for this model"
    assert why(it, model="claude-opus-5-5") is None
    assert why(it, model=None) is None
    assert why(it, GRACE, "claude-opus-4-8") is None
    assert why(it, model="claude-opus-4-8", after=SECOND) is None


def test_of_two_limits_of_a_model_the_later_end_counts(it):
    it.cool_group(ADA.id, "claude-opus-5-5", NOW + 60 * SECOND, NOW)
    it.cool_line(ADA.id, "opus", NOW + 90 * SECOND)

    found = it.why_not(ADA, "claude-opus-5-5", NOW)
    assert found == Exclusion("ada", "rate limited for this model", NOW + 90 * SECOND)


def test_a_limit_of_a_line_is_none_of_models_that_only_sound_like_it(it):
    it.cool_line(ADA.id, "opus", NOW + SECOND)

    assert why(it, model="claude-magnopus-1") is None
    assert why(it, model="claude-3-opus-20240229")


def test_a_limit_of_a_line_leaves_the_others(it):
    it.cool_line(ADA.id, "opus", NOW + SECOND)

    assert why(it, model="claude-opus-5-5") == "rate limited for this model"
    assert why(it, model="claude-haiku-5-5") is None
    assert why(it, model=None) is None
    assert why(it, GRACE, "claude-opus-5-5") is None
    assert why(it, model="claude-opus-5-5", after=SECOND) is None


def test_a_model_the_account_lacks_is_remembered_for_a_while(it):
    it.lack(ADA.id, "opus", NOW + SECOND, NOW)

    assert why(it, model="opus") == LACKS_MODEL
    assert why(it, model="haiku") is None
    assert why(it, model="opus", after=SECOND) is None


def test_callers_cannot_fill_the_memory_with_names_of_models(it):
    for number in range(5000):
        it.lack(ADA.id, f"model-{number}", NOW + SECOND, NOW)
    it.lack(ADA.id, "x" * 1000, NOW + SECOND, NOW)

    assert len(it._lacks) == 1000
    it.lack(ADA.id, "opus", NOW + 3 * SECOND, NOW + 2 * SECOND)
    assert len(it._lacks) == 1


def test_names_of_models_that_are_limited_cannot_fill_the_memory_either(it):
    for number in range(5000):
        it.cool_group(ADA.id, f"model-{number}", NOW + SECOND, NOW)

    assert len(it._cool_groups) == 1000
    it.cool_group(ADA.id, "x" * 1000, NOW + 3 * SECOND, NOW + 2 * SECOND)
    assert len(it._cool_groups) == 1
    assert why(it, model="x" * 2000, after=2 * SECOND)


def test_an_account_that_keeps_failing_while_others_serve_is_set_aside(it):
    it.succeed(GRACE.id, NOW)
    fail(it, 2)
    assert why(it) is None
    fail(it, 1, since=SECOND)

    assert why(it, after=SECOND) == "set aside after trouble of its own"
    assert why(it, GRACE) is None


def test_an_account_that_fails_alone_because_it_is_alone_goes_on(it):
    fail(it, 20)

    assert why(it) is None


def test_a_success_in_between_begins_the_count_anew(it):
    it.succeed(GRACE.id, NOW)
    fail(it, 2)
    it.succeed(ADA.id, NOW)
    fail(it, 2)

    assert why(it) is None


def test_after_the_pause_one_request_tries(it):
    open_circuit(it)

    assert why(it, after=6 * SECOND) is None
    assert it.begin(ADA.id) is True
    assert why(it, after=6 * SECOND)
    assert it.begin(ADA.id) is False


def test_a_trial_that_succeeds_brings_the_account_back(it):
    open_circuit(it)
    it.begin(ADA.id)
    it.succeed(ADA.id, NOW + 6 * SECOND)

    assert why(it, after=6 * SECOND) is None
    assert it.begin(ADA.id) is False


def test_a_trial_that_fails_doubles_the_pause(it):
    open_circuit(it)
    at = NOW + 6 * SECOND
    for pause in (10, 20, 40, 80, 120, 120):
        it.begin(ADA.id)
        it.fail(ADA.id, at, is_trial=True)
        assert it.why_not(ADA, None, at + (pause - 1) * SECOND)
        at += pause * SECOND
        assert it.why_not(ADA, None, at) is None


def test_a_trial_that_is_abandoned_makes_room_for_the_next(it):
    open_circuit(it)
    it.begin(ADA.id)
    it.abandon(ADA.id)

    assert why(it, after=6 * SECOND) is None
    assert it.begin(ADA.id) is True


def test_a_late_failure_from_before_the_pause_is_no_trial(it):
    open_circuit(it)
    it.begin(ADA.id)
    it.fail(ADA.id, NOW + 6 * SECOND, is_trial=False)

    assert not it.begin(ADA.id)  # the trial goes on
    it.succeed(ADA.id, NOW)
    assert why(it) is None


def test_accounts_that_fail_alike_are_not_to_blame(it):
    open_circuit(it)
    fail(it, 1, GRACE, since=SECOND)

    assert why(it) is None
    assert why(it, GRACE) is None


def test_accounts_that_fail_at_different_times_do_not_fail_alike(it):
    open_circuit(it)
    it.fail(GRACE.id, NOW + 6 * SECOND)

    assert why(it)


def test_what_several_accounts_fail_on_is_forgiven(it):
    open_circuit(it)
    it.forgive({ADA.id, GRACE.id})

    assert why(it) is None


def test_others_serve_if_they_answer_and_none_of_them_fails(it):
    assert not it.others_serve(ADA.id, NOW)
    it.succeed(GRACE.id, NOW)
    assert it.others_serve(ADA.id, NOW + 5 * SECOND)
    assert not it.others_serve(GRACE.id, NOW)
    assert not it.others_serve(ADA.id, NOW + 6 * SECOND)
    it.fail(3, NOW)
    assert not it.others_serve(ADA.id, NOW + SECOND)
