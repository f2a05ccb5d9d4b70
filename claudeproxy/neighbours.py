"""What the session limit is told about client keys and accounts."""

from collections.abc import Collection, Mapping

from accounts.models import Account
from clients.models import ClientKey


class SessionNeighbours:
    """Answers `sessions_limit.neighbours`."""

    def key_limits(self, key_ids: Collection[int]) -> Mapping[int, int | None]:
        keys = ClientKey.objects.filter(pk__in=key_ids)
        return dict(keys.values_list("pk", "session_limit"))

    def account_ids(self, names: Collection[str]) -> Mapping[str, int]:
        accounts = Account.objects.filter(name__in=names)
        return dict(accounts.values_list("name", "pk"))
