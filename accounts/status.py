"""The four statuses of an account and the moves between them."""

from django.db.models import TextChoices


class AccountStatus(TextChoices):
    ACTIVE = "active", "active"  # serves requests
    INACTIVE = "inactive", "inactive"  # switched off: by an admin, or idle too long
    RATE_LIMITED = "rate_limited", "rate limited"  # back when its deadline has passed
    INVALID = "invalid", "invalid"  # its credential was refused; a person must act


class AccountKind(TextChoices):
    OAUTH = "oauth", "OAuth"  # access token that is refreshed
    API_KEY = "api_key", "API key"


class ObjectKind(TextChoices):
    """What is made through an account and stays with it."""

    BATCH = "batch", "batch"
    FILE = "file", "file"
    SKILL = "skill", "skill"
    CONTAINER = "container", "container"
    THREAD = "thread", "message thread"


def health_of(usable: int) -> str:
    """Name the health of a pool in which so many accounts can serve.

    One account is degraded: nothing backs it up.
    """
    return ("unhealthy", "degraded", "healthy")[min(usable, 2)]


ALLOWED_MOVES: dict[AccountStatus, frozenset[AccountStatus]] = {
    AccountStatus.ACTIVE: frozenset(
        {AccountStatus.INACTIVE, AccountStatus.RATE_LIMITED, AccountStatus.INVALID}
    ),
    AccountStatus.INACTIVE: frozenset({AccountStatus.ACTIVE}),
    AccountStatus.RATE_LIMITED: frozenset(
        {AccountStatus.ACTIVE, AccountStatus.INACTIVE, AccountStatus.INVALID}
    ),
    AccountStatus.INVALID: frozenset({AccountStatus.ACTIVE, AccountStatus.INACTIVE}),
}
