from collections import Counter
from datetime import timedelta

import pytest

from accounts.status import AccountStatus
from proxy import selection
from proxy.benches import RATE_LIMITED, Benches
from tests.factories import NOW, pooled

LATER = NOW + timedelta(minutes=5)
POOL = [pooled(i) for i in range(1, 6)]
KEYS = range(1, 2001)


def home(key_id, pool=POOL, **rest):
    decision = selection.choose_home(pool, key_id=key_id, cursor=7, now=NOW, **rest)
    return decision.account and decision.account.id


def owner(account, **rest):
    return selection.choose_owner([account], account.id, cursor=7, now=NOW, **rest)


def test_a_key_is_always_at_home_at_the_same_account():
    for key_id in KEYS:
        assert home(key_id) == home(key_id, POOL[::-1])


def test_keys_spread_over_the_accounts():
    homes = Counter(home(key_id) for key_id in KEYS)

    assert set(homes) == {1, 2, 3, 4, 5}
    assert all(300 < count < 500 for count in homes.values())


def test_an_account_that_goes_moves_only_the_keys_it_had():
    left = [account for account in POOL if account.id != 3]
    for key_id in KEYS:
        if home(key_id) != 3:
            assert home(key_id, left) == home(key_id)


def test_an_account_that_comes_takes_keys_and_moves_none_between_others():
    more = [*POOL, pooled(6)]
    moved = {
        home(key_id, more) for key_id in KEYS if home(key_id, more) != home(key_id)
    }

    assert moved == {6}


def test_whoever_cannot_serve_is_nobodys_home():
    first = home(1)
    benches = Benches()
    benches.cool(first, LATER, RATE_LIMITED)
    off = [
        pooled(a.id, status=AccountStatus.INACTIVE) if a.id == first else a
        for a in POOL
    ]

    second = home(1, already_tried={first})
    assert second not in {None, first}
    assert home(1, benches=benches) == home(1, off) == second


def test_without_accounts_nobody_is_at_home():
    decision = selection.choose_home([], key_id=1, cursor=7, now=NOW)

    assert (decision.account, decision.how, decision.cursor) == (None, "nobody", 7)


def test_the_owner_is_chosen_and_nobody_else():
    decision = selection.choose_owner(POOL, 3, cursor=7, now=NOW)

    assert decision.account is POOL[2]
    assert (decision.how, decision.cursor) == ("owner", 7)


def test_an_owner_who_was_deleted_is_nobody():
    decision = selection.choose_owner(POOL, 99, cursor=7, now=NOW)

    assert (decision.account, decision.excluded) == (None, ())


@pytest.mark.parametrize("has_own_limits", [True, False])
def test_a_rate_limit_stops_only_what_it_is_about(has_own_limits):
    limited = pooled(status=AccountStatus.RATE_LIMITED, rate_limited_until=LATER)
    decision = owner(limited, has_own_limits=has_own_limits)

    assert (decision.account is not None) is has_own_limits
    if not has_own_limits:
        assert decision.excluded[0].until == LATER


@pytest.mark.parametrize("has_own_limits", [True, False])
def test_what_a_worker_set_aside_stops_only_messages(has_own_limits):
    benches = Benches()
    benches.cool(1, LATER, RATE_LIMITED, LATER)
    decision = owner(pooled(1), benches=benches, has_own_limits=has_own_limits)

    assert (decision.account is not None) is has_own_limits


@pytest.mark.parametrize("status", [AccountStatus.INACTIVE, AccountStatus.INVALID])
@pytest.mark.parametrize("has_own_limits", [True, False])
def test_an_owner_who_is_not_in_use_never_serves(status, has_own_limits):
    decision = owner(pooled(status=status), has_own_limits=has_own_limits)

    assert decision.account is None
    assert not decision.excluded[0].is_in_use
