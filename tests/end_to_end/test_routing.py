"""New conversations take turns among the accounts; each stays with its own."""

import uuid
from collections import Counter
from typing import Any

import httpx
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.conftest import caller
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import ask

pytestmark = pytest.mark.processes


def say(client: httpx.Client, text: str = "", **rest: Any) -> httpx.Response:
    """Send a message, of a conversation nobody has begun unless *text* is given."""
    headers = rest.pop("headers", {})
    body = ask(text or f"New: {uuid.uuid4()}", **rest)
    answer = client.post("/v1/messages", json=body, headers=headers)
    assert answer.status_code == 200
    return answer


def accounts(sandbox: Sandbox) -> list[str | None]:
    return [entry.account for entry in sandbox.log.after()]


def test_new_conversations_take_turns(ana: httpx.Client, sandbox: Sandbox) -> None:
    for _ in range(9):
        say(ana)
    served = accounts(sandbox)
    assert Counter(served) == {"ada": 3, "grace": 3, "edsger": 3}
    assert served[:3] == served[3:6] == served[6:]


def test_named_session_stays_with_its_account(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    session = {"x-claude-code-session-id": str(uuid.uuid4())}
    for _ in range(4):
        say(ana, headers=session)
        say(ana)
    assert len(set(accounts(sandbox)[::2])) == 1


@pytest.mark.parametrize(
    "form", ['{{"session_id": "{0}"}}', "user_x_account__session_{0}"]
)
def test_session_in_the_metadata_stays_with_its_account(
    ana: httpx.Client, sandbox: Sandbox, form: str
) -> None:
    metadata = {"user_id": form.format(uuid.uuid4())}
    for _ in range(4):
        say(ana, metadata=metadata)
        say(ana)
    assert len(set(accounts(sandbox)[::2])) == 1


def test_conversation_known_by_its_beginning_stays_with_its_account(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    turns = [{"role": "user", "content": f"Begin: {uuid.uuid4()}"}]
    for _ in range(4):
        answer = say(ana, messages=turns).json()
        turns += [
            {"role": "assistant", "content": answer["content"]},
            {"role": "user", "content": "Go on."},
        ]
        say(ana)
    assert len(set(accounts(sandbox)[::2])) == 1


def test_counting_tokens_goes_to_the_account_of_the_conversation(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    session = {"x-claude-code-session-id": str(uuid.uuid4())}
    say(ana, headers=session)
    say(ana)
    answer = ana.post("/v1/messages/count_tokens", json=ask(), headers=session)
    assert answer.status_code == 200
    first, _, counted = accounts(sandbox)
    assert counted == first


def test_same_session_id_under_another_key_is_another_conversation(
    gateway: Gateway, ana: httpx.Client, sandbox: Sandbox
) -> None:
    session = {"x-claude-code-session-id": str(uuid.uuid4())}
    with caller(gateway, "ben") as ben:
        for _ in range(3):
            say(ana, headers=session)
            say(ben, headers=session)
    first, second, *rest = accounts(sandbox)
    assert first != second
    assert rest == [first, second] * 2


def test_conversation_is_not_bound_by_a_refused_request(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    session = {"x-claude-code-session-id": str(uuid.uuid4())}
    refused = ana.post("/v1/messages", json=ask(messages=[]), headers=session)
    assert refused.status_code == 400
    say(ana, headers=session)
    first, second = accounts(sandbox)
    assert first != second
