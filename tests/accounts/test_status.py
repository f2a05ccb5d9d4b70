import pytest

from accounts.status import ALLOWED_MOVES, AccountStatus

ACTIVE, INACTIVE, LIMITED, INVALID = (
    AccountStatus.ACTIVE,
    AccountStatus.INACTIVE,
    AccountStatus.RATE_LIMITED,
    AccountStatus.INVALID,
)


def test_there_are_four_statuses():
    assert set(AccountStatus.values) == {
        "active",
        "inactive",
        "rate_limited",
        "invalid",
    }


@pytest.mark.parametrize("source", AccountStatus)
@pytest.mark.parametrize("target", AccountStatus)
def test_every_move_is_allowed_or_not(source, target):
    allowed = {
        *((ACTIVE, INACTIVE), (ACTIVE, LIMITED), (ACTIVE, INVALID)),
        (INACTIVE, ACTIVE),
        *((LIMITED, ACTIVE), (LIMITED, INACTIVE), (LIMITED, INVALID)),
        *((INVALID, ACTIVE), (INVALID, INACTIVE)),
    }

    assert (target in ALLOWED_MOVES[source]) is ((source, target) in allowed)


@pytest.mark.parametrize("status", AccountStatus)
def test_an_admin_can_bring_every_account_back(status):
    assert status is ACTIVE or ACTIVE in ALLOWED_MOVES[status]
