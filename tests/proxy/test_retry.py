from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import retry
from proxy.outcomes import Blame, Effect, Judgement, Step
from proxy.retry import STOP, Budget, Policy, Situation

SECOND = timedelta(seconds=1)
POLICY = Policy()
FIRST = Situation(
    attempts=1,
    pauses=0,
    bursts=0,
    remaining=timedelta(minutes=5),
    has_others=True,
    has_budget=True,
    others_serve=False,
)
ALONE = replace(FIRST, has_others=False)
LIMITED = Judgement(Blame.ACCOUNT, "limited", Effect.LIMIT, Step.HOP)
BURST = Judgement(Blame.ACCOUNT, "burst", Effect.COOL, Step.HOP, retry_after=3 * SECOND)
DOWN = Judgement(Blame.UPSTREAM, "status 500", Effect.TROUBLE, Step.WAIT)
CUT = Judgement(Blame.NETWORK, "network", Effect.TROUBLE, Step.HOP)
BAD = Judgement(Blame.REQUEST, "status 400")


def middle(low, high):
    return (low + high) / 2


def plan(judgement, situation=FIRST, policy=POLICY, uniform=middle):
    return retry.plan(judgement, situation, policy, uniform)


@pytest.mark.parametrize("judgement", [LIMITED, BURST])
def test_an_account_at_fault_is_left_at_once_and_for_free(judgement):
    assert plan(judgement) == retry.Plan(tries_again=True)


def test_trouble_on_the_network_is_left_at_once_but_charged():
    assert plan(CUT) == retry.Plan(tries_again=True, is_charged=True)


def test_the_upstream_is_given_time():
    expected = retry.Plan(tries_again=True, wait=SECOND, is_charged=True)

    assert plan(DOWN) == plan(DOWN, ALONE) == plan(CUT, ALONE) == expected


@pytest.mark.parametrize("judgement", [DOWN, CUT])
def test_leaving_the_one_that_fails_alone_is_not_charged(judgement):
    situation = replace(FIRST, others_serve=True, has_budget=False)

    assert plan(judgement, situation).tries_again
    assert not plan(judgement, situation).is_charged


@pytest.mark.parametrize(
    ("judgement", "situation"),
    [
        (BAD, FIRST),
        (LIMITED, ALONE),
        (DOWN, replace(FIRST, attempts=5)),
        (LIMITED, replace(FIRST, attempts=5)),
        (DOWN, replace(FIRST, has_budget=False)),
        (CUT, replace(FIRST, has_budget=False)),
        (DOWN, replace(ALONE, has_budget=False, others_serve=True)),
        (DOWN, replace(FIRST, remaining=SECOND)),
        (replace(BURST, retry_after=None), ALONE),
    ],
)
def test_there_is_a_time_to_stop(judgement, situation):
    assert plan(judgement, situation) == STOP


@pytest.mark.parametrize("judgement", [LIMITED, DOWN, CUT])
def test_nothing_is_repeated_if_the_operator_does_not_want_it(judgement):
    assert plan(judgement, policy=Policy(is_enabled=False)) == STOP


def test_a_burst_is_waited_for_if_nobody_else_is_there():
    assert plan(BURST, ALONE).wait == 3 * SECOND


def test_a_second_burst_is_waited_for_and_not_passed_on():
    situation = replace(FIRST, attempts=2, bursts=2)

    assert plan(BURST, situation).wait == 3 * SECOND
    assert plan(replace(BURST, retry_after=None), situation).wait == SECOND


@pytest.mark.parametrize(
    ("pauses", "seconds"),
    [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (7, 60), (1000, 60)],
)
def test_each_pause_doubles_up_to_a_limit(pauses, seconds):
    assert retry.delay(pauses, None, POLICY, middle) == seconds * SECOND


@pytest.mark.parametrize(
    ("uniform", "seconds"), [(lambda low, _: low, 0.5), (lambda _, high: high, 1.5)]
)
def test_chance_shortens_or_lengthens_a_pause(uniform, seconds):
    assert retry.delay(0, None, POLICY, uniform) == seconds * SECOND


def test_a_pause_is_never_shorter_than_the_upstream_asks_for():
    assert retry.delay(0, 9 * SECOND, POLICY, middle) == 9 * SECOND
    assert retry.delay(5, 9 * SECOND, POLICY, middle) == 32 * SECOND


def test_a_pause_is_never_negative():
    eager = Policy(base_delay=timedelta())

    assert retry.delay(0, None, eager, lambda low, _: low) == timedelta()


SPANS = st.timedeltas(timedelta(), timedelta(hours=2))


@given(
    st.builds(
        Judgement,
        st.sampled_from(Blame),
        st.just("any"),
        st.sampled_from(Effect),
        st.sampled_from(Step),
        retry_after=st.none() | SPANS,
    ),
    st.builds(
        Situation,
        attempts=st.integers(1, 30),
        pauses=st.integers(0, 2000),
        bursts=st.integers(0, 30),
        remaining=SPANS,
        has_others=st.booleans(),
        has_budget=st.booleans(),
        others_serve=st.booleans(),
    ),
    st.builds(
        Policy,
        st.booleans(),
        st.integers(1, 20),
        SPANS,
        SPANS,
        SPANS,
    ),
    st.floats(0, 1),
)
def test_whatever_happens_the_bounds_hold(judgement, situation, policy, chance):
    def uniform(low, high):
        return low + (high - low) * chance

    planned = retry.plan(judgement, situation, policy, uniform)

    if not planned.tries_again:
        assert planned == STOP
        return
    assert policy.is_enabled
    assert judgement.step is not Step.RELAY
    assert situation.attempts < policy.max_attempts
    assert timedelta() <= planned.wait
    if planned.wait:
        assert planned.wait < situation.remaining
        assert planned.wait >= (judgement.retry_after or timedelta())
    if planned.is_charged:
        assert situation.has_budget


def test_the_budget_begins_full_and_each_repeat_takes_one():
    budget = Budget(most=3)
    for _ in range(3):
        assert budget.has_one(0)
        budget.take(0)

    assert not budget.has_one(0)


def test_ten_requests_pay_for_one_repeat():
    budget = Budget(most=1)
    budget.take(0)
    for _ in range(9):
        budget.note_request(0)

    assert not budget.has_one(0)
    budget.note_request(0.001)
    assert budget.has_one(0.001)


def test_time_pays_too_but_saves_up_only_so_much():
    budget = Budget(most=2, floor_per_second=1)
    budget.take(0)
    budget.take(0)

    assert not budget.has_one(0.5)
    assert budget.has_one(1)
    assert budget.has_one(1000)
    budget.take(1000)
    budget.take(1000)
    assert not budget.has_one(1000)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.2)), max_size=300))
def test_repeats_stay_a_share_of_the_requests(steps):
    budget = Budget(share=0.1, floor_per_second=1, most=5)
    now, requests, repeats = 0.0, 0, 0
    for is_request, passes in steps:
        now += passes
        if is_request:
            budget.note_request(now)
            requests += 1
        elif budget.has_one(now):
            budget.take(now)
            repeats += 1

    assert repeats <= 5 + 0.1 * requests + now + 1e-6
