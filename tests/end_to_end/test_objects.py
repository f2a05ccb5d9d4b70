"""What is made through an account stays with it, and callers need not know."""

import contextlib
import io
import sqlite3
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import ThreadNotFoundError

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.conftest import caller
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask

pytestmark = pytest.mark.processes

ACCOUNTS = ("ada", "grace", "edsger")


@pytest.fixture
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with sdk(gateway.url, gateway.key) as client:
        yield client


def sdk(url: str, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)


def at(server: SandboxServer, account: str) -> anthropic.Anthropic:
    """A client of one account, past the gateway."""
    return sdk(server.url, f"sk-sandbox-{account}")


def owner_of(sandbox: Sandbox, object_id: str) -> str:
    (owner,) = [o.account for o in sandbox.objects.owned() if o.id == object_id]
    return owner


def requests(*texts: str) -> list[Any]:
    return [{"custom_id": f"r{i}", "params": ask(text)} for i, text in enumerate(texts)]


def upload(client: anthropic.Anthropic, text: str = "words") -> str:
    return client.files.upload(file=("a.txt", io.BytesIO(text.encode()))).id


def with_file(file_id: str, *more: str) -> dict[str, Any]:
    documents = [
        {"type": "document", "source": {"type": "file", "file_id": found}}
        for found in (file_id, *more)
    ]
    return ask(
        messages=[
            {"role": "user", "content": [*documents, {"type": "text", "text": "Read."}]}
        ]
    )


def last_account(sandbox: Sandbox) -> str | None:
    return sandbox.log.after()[-1].account


# --- batches


def test_sdk_takes_a_batch_from_its_making_to_its_results(
    client: anthropic.Anthropic, gateway: Gateway, sandbox: Sandbox
) -> None:
    made = client.messages.batches.create(requests=requests("One.", "Two."))
    batch = client.messages.batches.retrieve(made.id)
    results = list(client.messages.batches.results(made.id))

    assert batch.processing_status == "ended"
    assert batch.results_url == f"{gateway.url}/v1/messages/batches/{made.id}/results"
    assert [result.custom_id for result in results] == ["r0", "r1"]
    owner = owner_of(sandbox, made.id)
    assert {entry.account for entry in sandbox.log.after()} == {owner}


def test_a_batch_that_was_cancelled_and_deleted_is_gone(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    sandbox.objects.batch_seconds = 1000
    made = client.messages.batches.create(requests=requests("One."))
    client.messages.batches.cancel(made.id)
    client.messages.batches.retrieve(made.id)
    client.messages.batches.delete(made.id)

    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made.id)


def test_no_address_of_the_upstream_is_ever_shown(
    ana: httpx.Client, sandbox_server: SandboxServer, client: anthropic.Anthropic
) -> None:
    made = client.messages.batches.create(requests=requests("One."))
    path = f"/v1/messages/batches/{made.id}"
    sandbox = httpx.URL(sandbox_server.url).netloc.decode()
    for answer in (ana.get(path), ana.get("/v1/messages/batches")):
        assert answer.status_code == 200
        assert sandbox not in answer.text
        assert f"{ana.base_url}".rstrip("/") + path in answer.text


@pytest.mark.parametrize(
    ("host", "shown"),
    [("claude.example:8443", "claude.example:8443"), ("a/b@c", None)],
)
def test_the_address_of_results_is_the_one_the_caller_used(
    ana: httpx.Client, client: anthropic.Anthropic, host: str, shown: str | None
) -> None:
    made = client.messages.batches.create(requests=requests("One."))
    path = f"/v1/messages/batches/{made.id}"
    answer = ana.get(path, headers={"host": host})

    expected = shown or f"127.0.0.1:{ana.base_url.port}"
    assert answer.json()["results_url"] == f"http://{expected}{path}/results"


def test_batches_of_all_accounts_are_one_list_without_gaps(
    client: anthropic.Anthropic, sandbox: Sandbox, sandbox_server: SandboxServer
) -> None:
    made = []
    for number in range(11):
        with at(sandbox_server, ACCOUNTS[number % 3]) as account:
            batch = account.messages.batches.create(requests=requests("One."))
        made.append(batch.id)
    newest_first = made[::-1]

    for limit in (1, 2, 3, 20):
        paged = [batch.id for batch in client.messages.batches.list(limit=limit)]
        assert paged == newest_first
    back = client.messages.batches.list(before_id=newest_first[-1], limit=2)
    paged_back = [[batch.id for batch in page.data] for page in back.iter_pages()]
    assert [i for page in reversed(paged_back) for i in page] == newest_first[:-1]
    # What was listed is found without asking around.
    before = len(sandbox.log.after())
    client.messages.batches.retrieve(made[0])
    assert [e.account for e in sandbox.log.after()[before:]] == ["ada"]


def test_a_batch_goes_to_the_account_that_has_its_files(
    client: anthropic.Anthropic, sandbox: Sandbox, sandbox_server: SandboxServer
) -> None:
    for name in ACCOUNTS:
        with at(sandbox_server, name) as account:
            file_id = upload(account)
        client.files.retrieve_metadata(file_id)
        batch = client.messages.batches.create(
            requests=[{"custom_id": "r", "params": with_file(file_id)}]  # type: ignore[typeddict-item]
        )
        assert owner_of(sandbox, batch.id) == name


# --- files and skills


def test_what_a_key_makes_stays_together(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    made = [upload(client) for _ in range(5)]

    assert len({owner_of(sandbox, file_id) for file_id in made}) == 1


def test_a_file_is_read_and_used_where_it_is(
    client: anthropic.Anthropic, gateway: Gateway, sandbox: Sandbox
) -> None:
    file_id = upload(client, "of ana")
    owner = owner_of(sandbox, file_id)
    assert client.files.download(file_id).read() == b"of ana"
    for _ in range(4):
        client.messages.create(**with_file(file_id))
        assert last_account(sandbox) == owner
    assert gateway.requests_logged()[-1]["routing"] == "owner"
    client.files.delete(file_id)
    with pytest.raises(anthropic.NotFoundError):
        client.files.retrieve_metadata(file_id)


def test_files_of_all_accounts_are_one_list_without_gaps(
    client: anthropic.Anthropic, sandbox_server: SandboxServer
) -> None:
    made = []
    for number in range(10):
        with at(sandbox_server, ACCOUNTS[number % 3]) as account:
            made.append(upload(account))

    for limit in (1, 3, 4, 20):
        assert [f.id for f in client.files.list(limit=limit)] == made[::-1]
    named = client.files.list(ids=[made[0], made[4]])
    assert [f.id for f in named] == [made[4], made[0]]


def test_what_was_made_elsewhere_is_found(
    client: anthropic.Anthropic, sandbox_server: SandboxServer, sandbox: Sandbox
) -> None:
    with at(sandbox_server, "edsger") as account:
        file_id = upload(account, "elsewhere")

    assert client.files.download(file_id).read() == b"elsewhere"
    before = len(sandbox.log.after())
    client.files.retrieve_metadata(file_id)
    assert [e.account for e in sandbox.log.after()[before:]] == ["edsger"]


def test_what_nobody_has_is_asked_for_once(ana: httpx.Client, sandbox: Sandbox) -> None:
    for _ in range(3):
        answer = ana.get("/v1/files/file_nowhere")
        assert answer.status_code == 404
        assert "file_nowhere" in answer.json()["error"]["message"]
    assert len(sandbox.log.after()) == 3


def test_an_account_that_cannot_be_asked_may_have_it(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    fault = {
        "status": 500,
        "times": "forever",
        "path": "/v1/files",
        "headers": {"x-should-retry": "false"},
    }
    sandbox.script.add("grace", fault)
    assert ana.get("/v1/files/file_maybe").status_code == 503
    listed = ana.get("/v1/files")
    assert listed.status_code == 503
    assert "incomplete" in listed.json()["error"]["message"]
    assert "grace" not in listed.text


def test_files_of_two_accounts_cannot_be_used_together(
    client: anthropic.Anthropic, sandbox_server: SandboxServer
) -> None:
    ids = []
    for name in ("ada", "grace"):
        with at(sandbox_server, name) as account:
            ids.append(upload(account))
        client.files.retrieve_metadata(ids[-1])

    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**with_file(*ids))
    assert all(file_id in str(caught.value) for file_id in ids)


def test_an_object_whose_account_is_off_says_so(
    gateway: Gateway,
    client: anthropic.Anthropic,
    sandbox: Sandbox,
    sandbox_server: SandboxServer,
) -> None:
    file_id = upload(client)
    owner = owner_of(sandbox, file_id)
    with switched_off(gateway, sandbox_server, owner):
        for send in (
            lambda: client.files.retrieve_metadata(file_id),
            lambda: client.messages.create(**with_file(file_id)),
        ):
            with pytest.raises(anthropic.InternalServerError) as caught:
                send()
            assert caught.value.status_code == 503
            assert file_id in str(caught.value)
            assert owner not in str(caught.value)


@contextlib.contextmanager
def switched_off(
    gateway: Gateway, server: SandboxServer, account: str
) -> Iterator[None]:
    """An account that an operator took out, for as long as the context lasts."""
    with at(server, account) as client:
        probe = f"/v1/files/{upload(client, 'Is it on?')}"

    def is_answered_with(status: int) -> bool:
        with caller(gateway) as client:
            return client.get(probe).status_code == status

    assert is_answered_with(200)
    found = f"Account.objects.get(name={account!r})"
    rest = "actor='test', reason='test', now=timezone.now()"
    gateway.operate(f"lifecycle.deactivate({found}, {rest})")
    try:
        until(lambda: is_answered_with(503))
        yield
    finally:
        gateway.operate(f"lifecycle.activate({found}, {rest})")
        until(lambda: is_answered_with(200))


def test_owners_are_in_the_database(
    gateway: Gateway, client: anthropic.Anthropic
) -> None:
    file_id = upload(client)

    with sqlite3.connect(gateway.data_dir / "claudeproxy.sqlite3") as database:
        rows = database.execute(
            "select kind from accounts_ownedobject where object_id = ?", (file_id,)
        ).fetchall()
    assert rows == [("file",)]


def test_skills_have_their_versions_and_their_messages(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    words = b"---\nname: greeter\ndescription: greets\n---\nGreet.\n"
    files = [("greeter/SKILL.md", words, "text/markdown")]
    skill = client.skills.create(files=files)
    version = client.skills.versions.create(skill.id, files=files)
    shown = [v.id for v in client.skills.versions.list(skill.id, limit=1)]
    assert version.id in shown
    assert len(shown) == 2
    listed = list(client.skills.list(limit=1))
    assert [s.id for s in listed].count(skill.id) == 1
    assert len(listed) == len({s.id for s in listed})

    owner = owner_of(sandbox, skill.id)
    for _ in range(3):
        client.messages.create(
            **ask(
                container={"skills": [{"type": "custom", "skill_id": skill.id}]},
                tools=[{"type": "code_execution_20250825", "name": "code_execution"}],
            )
        )
        assert last_account(sandbox) == owner
    content = client.beta.skills.versions.download(version.id, skill_id=skill.id)
    assert content.read().startswith(b"PK")


def test_making_is_not_repeated_when_the_answer_is_lost(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    path = "/v1/messages/batches"
    step = {"cut_at_byte": "before_head", "path": path, "times": "forever"}
    sandbox.script.add("*", step)
    answer = ana.post("/v1/messages/batches", json={"requests": requests("One.")})

    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "false"
    assert len(sandbox.log.after()) == 1


@pytest.mark.parametrize("size", [10, 5 * 1024**2])
def test_a_file_passes_whole_whatever_its_size(
    client: anthropic.Anthropic, size: int
) -> None:
    file_id = upload(client, "x" * size)

    assert client.files.download(file_id).read() == b"x" * size


def test_a_part_of_a_file_may_be_asked_for(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    file_id = upload(client, "0123456789")
    wanted = {"range": "bytes=2-4"}
    client.files.download(file_id, extra_headers=wanted).read()

    assert ("range", "bytes=2-4") in sandbox.log.after()[-1].headers


def test_a_batch_in_a_file_goes_to_its_files_too(
    client: anthropic.Anthropic, sandbox: Sandbox, sandbox_server: SandboxServer
) -> None:
    for name in ACCOUNTS:
        with at(sandbox_server, name) as account:
            file_id = upload(account)
        client.files.retrieve_metadata(file_id)
        long: Any = {"custom_id": "long", "params": ask("x" * 2 * 1024**2)}
        short: Any = {"custom_id": "r", "params": with_file(file_id)}
        batch = client.messages.batches.create(requests=[long, short])
        assert owner_of(sandbox, batch.id) == name


# --- threads and containers


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_thread_goes_on_where_it_began(
    client: anthropic.Anthropic, sandbox: Sandbox, is_stream: bool
) -> None:
    betas = ["message-threads-2026-08-12"]

    def say(**fields: Any) -> str:
        asked = ask(**fields)
        if not is_stream:
            return str(client.beta.messages.create(betas=betas, **asked).id)
        with client.beta.messages.stream(betas=betas, **asked) as stream:
            return str(stream.get_final_message().id)

    for _ in range(3):
        message_id = say(thread={"type": "create"})
        began_at = last_account(sandbox)
        for _ in range(2):
            thread = {"type": "continue", "previous_message_id": message_id}
            message_id = say(thread=thread, text="More.")
            assert last_account(sandbox) == began_at


def test_a_thread_whose_account_is_off_is_not_found_as_sdks_know_it(
    client: anthropic.Anthropic,
    gateway: Gateway,
    sandbox: Sandbox,
    sandbox_server: SandboxServer,
) -> None:
    betas = ["message-threads-2026-08-12"]
    create = ask("Off.", thread={"type": "create"})
    message_id = client.beta.messages.create(betas=betas, **create).id
    thread = {"type": "continue", "previous_message_id": message_id}
    owner = str(last_account(sandbox))
    with (
        switched_off(gateway, sandbox_server, owner),
        pytest.raises(ThreadNotFoundError) as caught,
    ):
        client.beta.messages.create(betas=betas, **ask(thread=thread))
    assert caught.value.details.error_code == "thread_not_found"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_container_is_used_where_it_is(
    client: anthropic.Anthropic, sandbox: Sandbox, is_stream: bool
) -> None:
    tools = [{"type": "code_execution_20250825", "name": "code_execution"}]

    def say(**fields: Any) -> Any:
        asked = ask(tools=tools, **fields)
        if not is_stream:
            return client.messages.create(**asked).container
        with client.messages.stream(**asked) as stream:
            return stream.get_final_message().container

    for number in range(3):
        container = say(text=f"Begin {number}.")
        owner = owner_of(sandbox, container.id)
        for again in range(3):
            used = say(container=container.id, text=f"Again {number} {again}.")
            assert used.id == container.id
            assert last_account(sandbox) == owner
