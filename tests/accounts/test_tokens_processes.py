"""One refresh for each expiry, whatever the processes are and wherever they die."""

import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from claudeproxy.sandbox.server import SandboxServer
from tests.accounts import processes, provider
from tests.accounts.processes import Nursery, digest

pytestmark = pytest.mark.processes

PROCESSES = 8
CALLERS = 50
# The token of the account that processes die over lives for so long.
LIFE = timedelta(seconds=90)
WHILE_LEASED = timedelta(seconds=35)
AFTER_LEASE = timedelta(seconds=62)
AFTER_LIFE = timedelta(seconds=95)


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def nursery(
    request: pytest.FixtureRequest,
    server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Nursery]:
    settings = {
        "OAUTH_CLIENT_ID": server.sandbox.oauth.client_id,
        "OAUTH_AUTHORIZE_URL": f"{server.url}/oauth/authorize",
        "OAUTH_TOKEN_URL": f"{server.url}{provider.TOKEN_PATH}",
    }
    data_dir = tmp_path_factory.mktemp("nursery")
    with processes.nursery_on(request.param, data_dir, **settings) as it:
        yield it


class Account:
    """An account of the sandbox's that all processes know."""

    def __init__(self, server: SandboxServer, nursery: Nursery, life: timedelta):
        self.sandbox = server.sandbox
        self.seen: Any = None
        self._nursery = nursery
        pair = self.sandbox.oauth.issue("dorothy")
        self.old_token = digest(pair.access_token)
        self.id = nursery.one(
            "add",
            access=pair.access_token,
            refresh=pair.refresh_token,
            ends_in_seconds=life.total_seconds(),
        )

    def served(self, ahead: timedelta) -> str:
        """Say which token a request gets so much later, in a process of its own."""
        asked = {"account_id": self.id, "callers": 1, "ahead": ahead}
        self.seen = self._nursery.one("serve", **asked)
        (found,) = self.seen["tokens"]
        names = {None: "none", self.seen["token"]: "new", self.old_token: "old"}
        return names[found]


@pytest.fixture
def make_account(server: SandboxServer, nursery: Nursery) -> Any:
    server.sandbox.reset()
    return lambda life: Account(server, nursery, life)


@pytest.mark.parametrize("left_seconds", [-1, 30], ids=["dead", "about to end"])
def test_many_processes_with_many_requests_refresh_once(
    nursery: Nursery, make_account: Any, left_seconds: int
) -> None:
    account = make_account(timedelta(seconds=left_seconds))
    asked = {"account_id": account.id, "callers": CALLERS}
    ended = nursery.run("serve", count=PROCESSES, **asked)
    new_token = ended.results[0]["token"]

    assert ended.codes == [0] * PROCESSES
    assert provider.outcomes(account.sandbox) == ["issued"]
    assert new_token != account.old_token
    for result in ended.results:
        assert result["tokens"] == [new_token] * CALLERS
        assert result["moves"] == ["active"]


@pytest.mark.parametrize("status", [503, 400])
def test_many_processes_ask_a_provider_that_refuses_or_fails_once(
    nursery: Nursery, make_account: Any, status: int
) -> None:
    account = make_account(timedelta(seconds=-1))
    kind = {"error_type": "invalid_grant"} if status == 400 else {}
    provider.script(account.sandbox, {"status": status, "times": "forever", **kind})
    ended = nursery.run("serve", count=4, account_id=account.id, callers=10)

    assert provider.outcomes(account.sandbox) == ["scripted"]
    for result in ended.results:
        assert result["tokens"] == [None] * 10
        assert result["status"] == ("invalid" if status == 400 else "active")


# Where a process dies; which token requests get while its lease lasts, after that, and
# once the old token is dead; and how often the old refresh token has been sent.
DEATHS = {
    "before the lease": (["new", "new", "new"], 1),
    "after the lease": (["old", "new", "new"], 1),
    "after the mark": (["old", "old", "none"], 0),
    "without the answer": (["old", "old", "none"], 1),
    "with the answer": (["old", "old", "none"], 1),
    "after the pair": (["old", "old", "none"], 1),  # not committed yet
    "before the release": (["new", "new", "new"], 1),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_process_that_dies_while_it_refreshes_costs_as_little_as_can_be(
    nursery: Nursery, make_account: Any, death: str
) -> None:
    account = make_account(LIFE)
    provider.script(
        account.sandbox, *[{"lose_answer": True}] * (death == "without the answer")
    )
    ended = nursery.run("refresh", account_id=account.id, margin_seconds=120, die=death)
    assert ended.codes == [-signal.SIGKILL]
    served, sent = DEATHS[death]

    times = (WHILE_LEASED, AFTER_LEASE, AFTER_LIFE)
    assert [account.served(ahead) for ahead in times] == served
    assert provider.most_sent(account.sandbox) == sent
    if "none" in served:
        assert account.seen["moves"] == ["active", "invalid"]
        assert "interrupted" in account.seen["reason"]
    else:
        assert account.seen["moves"] == ["active"]


def test_a_refresh_that_does_not_die_takes_each_step(
    nursery: Nursery, make_account: Any
) -> None:
    account = make_account(LIFE)
    found = nursery.one("refresh", account_id=account.id, margin_seconds=120, die="")

    assert found == "refreshed"
    assert account.served(timedelta(0)) == "new"
