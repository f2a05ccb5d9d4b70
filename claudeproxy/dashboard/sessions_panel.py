"""How much of each session limit is used."""

from dataclasses import dataclass
from datetime import datetime

from claudeproxy.conf import conf
from clients.models import ClientKey
from sessions_limit import backends, listing
from sessions_limit.backends.base import StoreAwayError
from sessions_limit.keys import GLOBAL, scope_of

_KEYS_SHOWN = 10


@dataclass(frozen=True)
class KeySessions:
    """A key with a limit of its own, and how many sessions it has."""

    key: ClientKey
    used: int


@dataclass(frozen=True)
class SessionsPanel:
    """How many sessions are alive; `trouble` says why that is not known."""

    is_limited: bool
    used: int = 0
    limit: int = 0
    keys: tuple[KeySessions, ...] = ()
    keys_not_shown: int = 0
    trouble: str = ""


def load(now: datetime, *, may_see_keys: bool) -> SessionsPanel:
    """Gather the panel: one query for the sessions, and one for the keys."""
    if not conf.session_enabled:
        return SessionsPanel(is_limited=False)
    try:
        with backends.opened() as store:
            used = listing.count_alive(store.live())
    except StoreAwayError as error:
        return SessionsPanel(is_limited=True, trouble=str(error))
    shared_limit = conf.session_max_concurrent
    limited = ClientKey.objects.valid(now).filter(session_limit__isnull=False)
    own = [
        KeySessions(
            key,
            used[scope_of(key.pk, key.session_limit, shared_limit=shared_limit).name],
        )
        for key in (limited if may_see_keys else ())
    ]
    own.sort(key=lambda entry: -entry.used)
    return SessionsPanel(
        is_limited=True,
        used=used[GLOBAL],
        limit=shared_limit,
        keys=tuple(own[:_KEYS_SHOWN]),
        keys_not_shown=max(0, len(own) - _KEYS_SHOWN),
    )
