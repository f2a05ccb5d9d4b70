from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.status import AccountKind, AccountStatus
from proxy import selection
from proxy.errors import Exclusion
from proxy.selection import Tier, choose
from tests.factories import NOW, pooled

SECOND = timedelta(seconds=1)
LIMITED = AccountStatus.RATE_LIMITED


def decide(pool, **options) -> Any:
    return choose(pool, **{"cursor": 0, "now": NOW, **options})


def chosen_id(pool, **options):
    account = decide(pool, **options).account
    return account and account.id


@pytest.mark.parametrize(
    ("facts", "tier"),
    [
        ({}, Tier.FRESH),
        ({"expires_at": NOW + timedelta(hours=1)}, Tier.FRESH),
        ({"expires_at": NOW + timedelta(seconds=60)}, Tier.FRESH),
        ({"expires_at": NOW + timedelta(seconds=59)}, Tier.NEEDS_REFRESH),
        ({"expires_at": NOW - timedelta(days=1)}, Tier.NEEDS_REFRESH),
        ({"recovered_at": NOW}, Tier.JUST_RECOVERED),
        ({"recovered_at": NOW - timedelta(minutes=5) + SECOND}, Tier.JUST_RECOVERED),
        ({"recovered_at": NOW - timedelta(minutes=5)}, Tier.FRESH),
        ({"status": LIMITED, "rate_limited_until": NOW}, Tier.JUST_RECOVERED),
        (
            {"status": LIMITED, "rate_limited_until": NOW - timedelta(minutes=6)},
            Tier.FRESH,
        ),
        # Recovered and about to expire: the worse of the two counts.
        ({"recovered_at": NOW, "expires_at": NOW}, Tier.JUST_RECOVERED),
    ],
)
def test_an_account_is_ranked(facts, tier):
    assert selection.tier_of(pooled(**facts), NOW) == tier


@pytest.mark.parametrize(
    ("facts", "is_eligible"),
    [
        ({"status": AccountStatus.ACTIVE}, True),
        ({"status": AccountStatus.INACTIVE}, False),
        ({"status": AccountStatus.INVALID}, False),
        ({"status": LIMITED, "rate_limited_until": NOW + SECOND}, False),
        ({"status": LIMITED, "rate_limited_until": NOW}, True),
        ({"status": LIMITED, "rate_limited_until": NOW - SECOND}, True),
    ],
)
def test_only_an_account_that_may_serve_is_eligible(facts, is_eligible):
    account = pooled(**facts)

    assert selection.is_eligible(account, NOW) is is_eligible
    assert chosen_id([account]) == (account.id if is_eligible else None)


def test_a_better_tier_goes_first_wherever_the_cursor_stands():
    pool = [
        pooled(1, recovered_at=NOW),
        pooled(2, kind=AccountKind.OAUTH, expires_at=NOW),
        pooled(3),
    ]

    assert [chosen_id(pool, cursor=cursor) for cursor in range(5)] == [3] * 5
    assert [chosen_id(pool[:2], cursor=cursor) for cursor in range(5)] == [2] * 5
    assert [chosen_id(pool[:1], cursor=cursor) for cursor in range(5)] == [1] * 5


def test_accounts_of_one_tier_take_turns_by_id_whatever_their_order():
    pool = [pooled(7), pooled(2), pooled(5)]
    cursor, turns = 0, []
    for _ in range(6):
        decision = decide(pool, cursor=cursor)
        cursor = decision.cursor
        turns.append(decision.account.id)

    assert turns == [2, 5, 7, 2, 5, 7]


def test_a_removed_account_does_not_cost_its_neighbours_their_turn():
    pool = [pooled(1), pooled(2), pooled(3)]

    assert chosen_id([pool[0], pool[2]], cursor=2) == 3


@pytest.mark.parametrize("account", [pooled(1), pooled(1, recovered_at=NOW)])
def test_affinity_beats_the_tier(account):
    decision = decide([account, pooled(2)], preferred_id=1)

    assert decision.account is account
    assert decision.how == "affinity"


def test_affinity_does_not_move_the_cursor():
    pool = [pooled(1), pooled(2), pooled(3)]

    assert decide(pool, cursor=2, preferred_id=1).cursor == 2


@pytest.mark.parametrize(
    ("preferred", "tried"),
    [
        (pooled(1, status=AccountStatus.INACTIVE), ()),
        (pooled(1, status=AccountStatus.INVALID), ()),
        (pooled(1, status=LIMITED, rate_limited_until=NOW + SECOND), ()),
        (pooled(1), {1}),
    ],
)
def test_affinity_gives_way_when_its_account_cannot_serve(preferred, tried):
    decision = decide(
        [preferred, pooled(2)],
        preferred_id=1,
        already_tried=tried,
    )

    assert decision.account.id == 2
    assert decision.how == "round_robin"


def test_an_account_that_was_deleted_is_preferred_no_more():
    assert chosen_id([pooled(2)], preferred_id=1) == 2


def test_an_empty_pool_serves_nobody():
    decision = decide([], cursor=4)

    assert (decision.account, decision.how, decision.tier) == (None, "nobody", None)
    assert (decision.cursor, decision.excluded) == (4, ())


def test_a_decision_says_what_spoke_against_each_account():
    pool = [
        pooled(1, name="off", status=AccountStatus.INACTIVE),
        pooled(2, name="spent", status=LIMITED, rate_limited_until=NOW + SECOND),
        pooled(3, name="broken", status=AccountStatus.INVALID),
        pooled(4, name="tried"),
        pooled(5, name="good"),
    ]
    decision = decide(pool, already_tried={4})

    assert decision.account.name == "good"
    assert decision.excluded == (
        Exclusion("off", "inactive", is_in_use=False),
        Exclusion("spent", "rate limited", NOW + SECOND),
        Exclusion("broken", "invalid", is_in_use=False),
        Exclusion("tried", "already tried for this request"),
    )


# --- models


def having(id, *models, **facts):
    """An account whose models are known."""
    return replace(pooled(id, **facts), models=frozenset(models))


def test_an_account_known_to_lack_the_model_is_left_out():
    pool = [having(1, "opus"), having(2, "haiku"), having(3, "haiku", "opus")]
    decision = decide(pool, model="haiku")

    assert decision.account.id == 2
    assert decision.excluded == (
        Exclusion("account-1", "without this model", is_in_use=False),
    )
    assert [chosen_id(pool, model="haiku", cursor=c) for c in range(4)] == [2, 2, 3, 2]


def test_an_account_whose_models_are_not_known_is_never_left_out_for_them():
    pool = [having(1, "opus"), pooled(2)]

    assert chosen_id(pool, model="whatever") == 2


def test_a_request_without_a_model_goes_anywhere():
    assert chosen_id([having(1)], model=None) == 1


def test_affinity_gives_way_to_the_model():
    pool = [having(1, "opus"), having(2, "haiku")]

    assert chosen_id(pool, preferred_id=1, model="haiku") == 2
    assert chosen_id(pool, preferred_id=1, model="opus") == 1


@pytest.mark.parametrize(
    ("pool", "lacks"),
    [
        ([], False),
        ([pooled(1)], False),
        ([having(1, "opus")], True),
        ([having(1, "opus"), having(2, "haiku")], False),
        ([having(1, "opus"), pooled(2)], False),
        # One that will serve again has it; one that is off says nothing.
        (
            [
                having(1, "opus"),
                having(2, "haiku", status=LIMITED, rate_limited_until=NOW + SECOND),
            ],
            False,
        ),
        (
            [having(1, "opus"), having(2, "haiku", status=AccountStatus.INACTIVE)],
            True,
        ),
    ],
)
def test_a_model_is_lacking_everywhere_only_if_that_is_known(pool, lacks):
    assert selection.lacks_everywhere(pool, "haiku") is lacks


# --- waiting to refresh


def waiting(id, *, ends_in, retry_in):
    """An account whose last refresh did not succeed."""
    account = pooled(id, kind=AccountKind.OAUTH, expires_at=NOW + ends_in)
    return replace(account, refresh_retry_at=NOW + retry_in)


@pytest.mark.parametrize(
    ("ends_in", "retry_in", "is_eligible"),
    [
        (-SECOND, SECOND, False),
        (0 * SECOND, SECOND, False),
        (SECOND, 99 * SECOND, True),  # the old token lives
        (-SECOND, 0 * SECOND, True),  # the next refresh may be tried
        (-SECOND, -SECOND, True),
    ],
)
def test_a_dead_token_that_waits_for_its_refresh_serves_nobody(
    ends_in, retry_in, is_eligible
):
    account = waiting(1, ends_in=ends_in, retry_in=retry_in)

    assert selection.is_eligible(account, NOW) is is_eligible


def test_a_decision_says_who_waits_for_a_token():
    account = waiting(1, ends_in=-SECOND, retry_in=SECOND)

    assert decide([account]).excluded == (
        Exclusion("account-1", "waiting to refresh its token"),
    )


moments = st.integers(-600, 600).map(lambda s: NOW + s * SECOND)
ids = st.integers(1, 30)
pools = st.lists(
    st.builds(
        pooled,
        ids,
        status=st.sampled_from([s for s in AccountStatus if s != LIMITED]),
        recovered_at=st.none() | moments,
        expires_at=st.none() | moments,
    )
    | st.builds(pooled, ids, status=st.just(LIMITED), rate_limited_until=moments),
    max_size=8,
    unique_by=lambda account: account.id,
)


@given(
    pool=pools,
    cursor=st.integers(0, 31),
    preferred=st.none() | ids,
    tried=st.sets(ids, max_size=3),
)
def test_nobody_is_chosen_who_may_not_serve(pool, cursor, preferred, tried):
    decision = decide(pool, cursor=cursor, preferred_id=preferred, already_tried=tried)
    able = [a for a in pool if selection.is_eligible(a, NOW) and a.id not in tried]

    if decision.account is None:
        assert able == []
    else:
        assert decision.account in able
        assert decision.tier == selection.tier_of(decision.account, NOW)
    if decision.how == "round_robin":
        assert decision.tier == min(selection.tier_of(a, NOW) for a in able)


@given(
    memberships=st.lists(
        st.tuples(st.sets(ids, min_size=1, max_size=8), st.integers(1, 40)),
        max_size=4,
    )
)
def test_turns_of_equal_accounts_differ_by_one_at_most(memberships):
    cursor = 0
    for members, requests in memberships:
        pool = [pooled(id) for id in members]
        turns: Counter[int] = Counter(dict.fromkeys(members, 0))
        for _ in range(requests):
            decision = decide(pool, cursor=cursor)
            cursor = decision.cursor
            turns[decision.account.id] += 1
        assert max(turns.values()) - min(turns.values()) <= 1
