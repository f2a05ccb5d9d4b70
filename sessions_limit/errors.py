"""Why the session limit refuses a request.

SessionError
├─ SessionLimitReachedError   as many sessions as may be are alive
├─ SessionBusyError           the session has as many requests running as it may
├─ SessionBlockedError        an operator ended the session, for a time
└─ SessionStoreAwayError      nobody can tell: the store does not answer
"""

from datetime import timedelta
from http import HTTPStatus

from claudeproxy import durations
from claudeproxy.errors import ClaudeProxyError
from sessions_limit.keys import Scope

_LONGEST_SLEEP = timedelta(seconds=60)
_SOON = timedelta(seconds=1)


class SessionError(ClaudeProxyError):
    """The session limit does not let the request in."""

    http_status: int = HTTPStatus.TOO_MANY_REQUESTS
    error_type: str = "rate_limit_error"


class SessionLimitReachedError(SessionError):
    """As many sessions as may be are alive; *wait* is until the first could end."""

    def __init__(self, scope: Scope, ttl: timedelta, wait: timedelta) -> None:
        whose = (
            "the limit of this client key"
            if scope.is_of_one_key
            else "the limit of this gateway (SESSION_MAX_CONCURRENT)"
        )
        super().__init__(
            f"{scope.limit} at a time is {whose} for sessions, and so many are active. "
            f"A session ends {durations.describe(ttl)} after its last request: close "
            "a client that is not needed, or ask the operator for a higher limit. "
            f"The first could end in {durations.describe(max(wait, _SOON))}."
        )
        self.retry_after = max(wait, _SOON)
        # SDKs sleep as long as they are told to, however long that is.
        self.should_retry = False if wait > _LONGEST_SLEEP else None


class SessionBusyError(SessionError):
    """The session has as many requests running as it may."""

    retry_after = _SOON

    def __init__(self, max_requests: int) -> None:
        super().__init__(
            f"This session has {max_requests} requests running, which is the most this "
            "gateway allows (SESSION_MAX_REQUESTS). Wait until one of them has ended."
        )


class SessionBlockedError(SessionError):
    """An operator ended the session and keeps it out for a time."""

    # Clients end at a 403; at a 429 they would knock until the time is over.
    http_status: int = HTTPStatus.FORBIDDEN
    error_type: str = "permission_error"
    should_retry = False

    def __init__(self, wait: timedelta) -> None:
        super().__init__(
            "The operator of this gateway ended this session and blocked it; it may "
            f"come back in {durations.describe(max(wait, _SOON))}."
        )
        self.retry_after = max(wait, _SOON)


class SessionStoreAwayError(SessionError):
    """Sessions cannot be counted, so no further one is let in."""

    http_status: int = HTTPStatus.SERVICE_UNAVAILABLE
    error_type: str = "api_error"
    retry_after = timedelta(seconds=2)

    def __init__(self) -> None:
        super().__init__(
            "This gateway cannot count its sessions at the moment, so it lets no new "
            "one in. Try again soon; its operator finds the cause in the log."
        )
