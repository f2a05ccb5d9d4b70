"""Accounts whose tokens end: refreshed on the way, with no background jobs at all."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet

from claudeproxy.sandbox.log import Entry
from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from clients import keys
from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, Wire, ask, exchange, fetch, frames, request

pytestmark = pytest.mark.processes

TOKEN_PATH = "/v1/oauth/token"
PEOPLE = ("dorothy", "radia", "katherine", "hedy-home")
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def shared_pool(
    sandbox_server: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Pool"]:
    settings: dict[str, Any] = {
        "OAUTH_CLIENT_ID": sandbox_server.sandbox.oauth.client_id,
        "OAUTH_AUTHORIZE_URL": f"{sandbox_server.url}/oauth/authorize",
        "OAUTH_TOKEN_URL": f"{sandbox_server.url}{TOKEN_PATH}",
    }
    template = gateways.furnish(tmp_path_factory.mktemp("oauth"), accounts=("ada",))
    for person in PEOPLE:
        pair = sandbox_server.sandbox.oauth.issue(person)
        tokens = {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "expires_at": pair.expires_at.isoformat(),
        }
        command = ("add_account", person, "--kind", "oauth", "--from-json", "-")
        gateways.manage(
            template.directory, *command, "--no-check", stdin=json.dumps(tokens)
        )
    with gateways.running(
        template,
        tmp_path_factory.mktemp("pool"),
        upstream_url=sandbox_server.url,
        **settings,
    ) as gateway:
        yield Pool(gateway, sandbox_server.sandbox)


@pytest.fixture
def pool(shared_pool: "Pool", sandbox: Sandbox) -> "Pool":
    return shared_pool


class Pool:
    """The accounts of a running gateway, changed behind its back."""

    def __init__(self, gateway: Gateway, sandbox: Sandbox) -> None:
        self.gateway = gateway
        self.sandbox = sandbox
        key = (gateway.data_dir / "encryption_key").read_text().strip()
        self._fernet = Fernet(key)

    def set(self, *, api_key: bool = False, **ends_in: timedelta) -> None:
        """Let only these people serve, with new tokens that live so long."""
        status = "CASE WHEN name = 'ada' AND ? THEN 'active' ELSE 'inactive' END"
        self.execute(f"UPDATE accounts_account SET status = {status}", api_key)  # noqa: S608
        for name, life in ends_in.items():
            pair = self.sandbox.oauth.issue(name.replace("_", "-"))
            self.execute(
                "UPDATE accounts_account SET status = 'active', access_token = ?,"
                " refresh_token = ?, expires_at = ?, refresh_retry_at = NULL,"
                " refresh_failures = 0, sent_refresh_digest = '',"
                " is_refresh_doubtful = 0 WHERE name = ?",
                self._fernet.encrypt(pair.access_token.encode()).decode(),
                self._fernet.encrypt(pair.refresh_token.encode()).decode(),
                str((datetime.now(UTC) + life).replace(tzinfo=None)),
                name.replace("_", "-"),
            )
        self.be_seen()

    def be_seen(self) -> None:
        """Have the worker look into the database, as an unknown key makes it do."""
        answer = exchange(self.gateway.port, request(ask(), key=keys.generate()))
        assert answer.status == 401

    def learn_models(self, *ids: str) -> None:
        """Let these be the models of all accounts, as the daily job would store it."""
        models = json.dumps([{"id": model_id} for model_id in ids])
        self.execute("UPDATE accounts_account SET capabilities = ?", models)
        self.be_seen()

    def delete(self, name: str) -> None:
        account_id = "(SELECT id FROM accounts_account WHERE name = ?)"
        self.execute(
            f"UPDATE accounts_accountevent SET account_id = NULL"  # noqa: S608
            f" WHERE account_id = {account_id}",
            name,
        )
        self.execute("DELETE FROM accounts_account WHERE name = ?", name)

    def status_of(self, name: str) -> str | None:
        query = "SELECT status FROM accounts_account WHERE name = ?"
        rows = self.execute(query, name)
        return rows[0][0] if rows else None

    def execute(self, statement: str, *values: Any) -> list[Any]:
        path = self.gateway.data_dir / "claudeproxy.sqlite3"
        with (
            contextlib.closing(sqlite3.connect(path, timeout=20)) as database,
            database,
        ):
            return database.execute(statement, values).fetchall()

    def call(self, session: str = "", **fields: Any) -> Answer:
        return exchange(self.gateway.port, self.bytes_of(session, **fields))

    def bytes_of(self, session: str = "", **fields: Any) -> bytes:
        pairs = [("x-claude-code-session-id", session)] if session else []
        return request(ask(**fields), key=self.gateway.key, headers=pairs)

    def messages(self) -> list[Entry]:
        entries = self.sandbox.log.after()
        return [entry for entry in entries if entry.path == "/v1/messages"]

    def token_outcomes(self) -> list[str | None]:
        return [entry.token_outcome for entry in self.sandbox.oauth.token_requests()]


def is_complete(answer: Answer) -> bool:
    return answer.is_whole and b"message_stop" in frames(answer.body)[-1]


def test_a_token_about_to_end_is_refreshed_before_the_request(pool: Pool) -> None:
    pool.set(dorothy=20 * SECOND)
    answer = pool.call(stream=True)

    assert answer.status == 200
    assert is_complete(answer)
    entries = pool.sandbox.log.after()
    assert [entry.path for entry in entries] == [TOKEN_PATH, "/v1/messages"]
    assert pool.gateway.worker()  # the only child: there are no jobs


def test_a_token_that_has_ended_is_refreshed_and_serves(pool: Pool) -> None:
    pool.set(dorothy=-HOUR)
    pool.sandbox.oauth.expire_access_tokens("dorothy")

    assert [pool.call().status for _ in range(3)] == [200] * 3
    assert pool.token_outcomes() == ["issued"]


async def test_a_hundred_requests_at_the_end_of_a_token_refresh_once(
    pool: Pool,
) -> None:
    await asyncio.to_thread(pool.set, dorothy=-SECOND)
    pool.sandbox.oauth.expire_access_tokens("dorothy")
    data = pool.bytes_of(stream=True)
    calls = [fetch(pool.gateway.port, data) for _ in range(100)]
    answers = await asyncio.gather(*calls)

    assert all(answer.status == 200 and is_complete(answer) for answer in answers)
    assert pool.token_outcomes() == ["issued"]
    assert {entry.status for entry in pool.messages()} == {200}


def test_the_credential_of_a_person_is_a_bearer_with_its_beta(pool: Pool) -> None:
    pool.set(dorothy=HOUR)
    mine = [("anthropic-beta", "context-1m-2025-08-07"), ("x-api-key", "sk-mine")]
    data = request(ask(), key=pool.gateway.key, headers=mine)

    assert exchange(pool.gateway.port, data).status == 200
    (entry,) = pool.messages()
    headers = dict(entry.headers)
    assert entry.credential_headers == ["authorization"]
    assert headers["authorization"] == "[account dorothy]"
    assert headers["anthropic-beta"] == "context-1m-2025-08-07,oauth-2025-04-20"


def test_keys_and_people_serve_in_turn(pool: Pool) -> None:
    pool.set(api_key=True, dorothy=HOUR, radia=HOUR)
    answers = [pool.call(messages=_says(number)) for number in range(6)]

    assert [answer.status for answer in answers] == [200] * 6
    served = [str(entry.account) for entry in pool.messages()]
    assert sorted(served) == ["ada", "ada", "dorothy", "dorothy", "radia", "radia"]
    kinds = {e.account: e.credential_headers for e in pool.messages()}
    assert kinds["ada"] == ["x-api-key"]
    assert kinds["radia"] == ["authorization"]


def _says(number: int) -> list[dict[str, str]]:
    # Conversations of their own, so that each takes its turn.
    return [{"role": "user", "content": f"I am number {number}"}]


def bound_to(pool: Pool, person: str, session: str) -> None:
    """Let a conversation belong to an account."""
    ends_in: dict[str, Any] = {person: HOUR}
    pool.set(**ends_in)
    assert pool.call(session).status == 200
    pool.sandbox.log.clear()


@pytest.mark.parametrize("step", [{"status": 503}, {"reset": "before_head"}])
def test_while_the_provider_is_down_another_account_serves(
    pool: Pool, step: dict[str, Any]
) -> None:
    bound_to(pool, "dorothy", "down")
    pool.set(dorothy=-SECOND, radia=HOUR)
    pool.sandbox.script.add("dorothy", {"path": TOKEN_PATH, "times": "forever", **step})
    answers = [pool.call("down") for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert {entry.account for entry in pool.messages()} == {"radia"}
    assert pool.token_outcomes() == ["scripted"]
    assert pool.status_of("dorothy") == "active"


def test_while_the_provider_is_down_the_old_token_serves_to_its_end(pool: Pool) -> None:
    pool.set(dorothy=30 * SECOND)
    step = {"path": TOKEN_PATH, "status": 500, "times": "forever"}
    pool.sandbox.script.add("dorothy", step)
    answers = [pool.call() for _ in range(5)]

    assert [answer.status for answer in answers] == [200] * 5
    assert pool.token_outcomes() == ["scripted"]


def test_alone_with_a_dead_token_the_answer_says_so(pool: Pool) -> None:
    pool.set(dorothy=-SECOND)
    step = {"path": TOKEN_PATH, "status": 503, "times": "forever"}
    pool.sandbox.script.add("dorothy", step)
    first, second = pool.call(), pool.call()

    assert (first.status, second.status) == (503, 503)
    assert first.json()["error"]["type"] == "api_error"
    assert "waiting to refresh its token" in second.json()["error"]["message"]


def test_an_account_whose_refresh_is_refused_leaves_the_pool(pool: Pool) -> None:
    bound_to(pool, "dorothy", "refused")
    pool.set(dorothy=-SECOND, radia=HOUR)
    pool.sandbox.oauth.revoke("dorothy")
    answers = [pool.call("refused") for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert pool.token_outcomes() == ["invalid_grant"]
    assert pool.status_of("dorothy") == "invalid"


def test_an_account_deleted_during_its_refresh_costs_no_request(pool: Pool) -> None:
    bound_to(pool, "katherine", "deleted")
    pool.set(katherine=-SECOND, radia=HOUR)
    pool.sandbox.script.add("katherine", {"path": TOKEN_PATH, "delay_ms": 300})
    with Wire(pool.gateway.port) as wire:
        wire.send(pool.bytes_of("deleted"))
        until(pool.sandbox.oauth.token_requests)
        pool.delete("katherine")
        head = wire.receive_until(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200")
    assert [entry.account for entry in pool.messages()] == ["radia"]
    assert pool.status_of("katherine") is None


def test_an_account_deleted_while_it_streams_streams_to_the_end(pool: Pool) -> None:
    pool.set(hedy_home=HOUR)
    pool.sandbox.script.add("hedy-home", {"frames": 20, "frame_delay_ms": 15})
    with Wire(pool.gateway.port) as wire:
        wire.send(pool.bytes_of(stream=True))
        wire.receive_until(b"content_block_delta")
        pool.delete("hedy-home")
        pool.be_seen()
        received = wire.rest()

    assert b"message_stop" in received
    assert pool.status_of("hedy-home") is None


def test_an_account_switched_off_while_it_streams_stays_off(pool: Pool) -> None:
    pool.set(dorothy=20 * SECOND)
    pool.sandbox.script.add("dorothy", {"frames": 20, "frame_delay_ms": 15})
    with Wire(pool.gateway.port) as wire:
        wire.send(pool.bytes_of(stream=True))
        wire.receive_until(b"content_block_delta")
        pool.set()
        received = wire.rest()

    assert b"message_stop" in received
    assert pool.token_outcomes() == ["issued"]
    assert pool.status_of("dorothy") == "inactive"


def test_a_model_that_nobody_has_is_refused_with_those_there_are(pool: Pool) -> None:
    pool.set(dorothy=HOUR, radia=HOUR)
    pool.learn_models("claude-opus-5-5")
    answer = pool.call(model="claude-nope-1")
    said = answer.json()["error"]

    assert (answer.status, said["type"]) == (404, "not_found_error")
    assert "claude-nope-1" in said["message"]
    assert "claude-opus-5-5" in said["message"]


def test_an_account_known_to_lack_the_model_is_not_asked(pool: Pool) -> None:
    pool.set(dorothy=HOUR, radia=HOUR)
    pool.learn_models("claude-opus-5-5")
    step = "UPDATE accounts_account SET capabilities = NULL WHERE name = 'radia'"
    pool.execute(step)
    pool.be_seen()
    answers = [pool.call(model="claude-haiku-4-5") for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert {entry.account for entry in pool.messages()} == {"radia"}
