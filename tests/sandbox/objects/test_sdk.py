"""The official SDK works with everything that belongs to an account."""

import io
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import anthropic
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask

BINARY = bytes(range(256)) * 600 + b"\r\n--\r\n\0"
MANUAL = b"---\nname: greet\ndescription: Greets people.\n---\nBe kind."


def client_of(server: SandboxServer, name: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key=f"sk-sandbox-{name}", base_url=server.url, max_retries=0
    )


@pytest.fixture
def client(server: SandboxServer) -> Iterator[anthropic.Anthropic]:
    with client_of(server, "ada") as client:
        yield client


@pytest.fixture
def other(server: SandboxServer) -> Iterator[anthropic.Anthropic]:
    with client_of(server, "grace") as client:
        yield client


def requests_of(*names: str, **fields: Any) -> Any:
    return [{"custom_id": name, "params": ask(**fields)} for name in names]


def skill_files(manual: bytes = MANUAL) -> Any:
    return [("greet/SKILL.md", manual), ("greet/more/words.txt", b"Hello")]


# Batches


def test_batch_ends_at_the_first_look(client: anthropic.Anthropic) -> None:
    created = client.messages.batches.create(requests=requests_of("a", "b"))
    assert (created.processing_status, created.results_url) == ("in_progress", None)
    assert created.request_counts.processing == 2
    assert created.expires_at - created.created_at == timedelta(hours=24)
    ended = client.messages.batches.retrieve(created.id)
    assert ended.processing_status == "ended"
    assert ended.ended_at is not None
    assert ended.request_counts.to_dict() == {
        "processing": 0,
        "succeeded": 2,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }


def test_batch_results_are_the_messages_of_its_requests(
    client: anthropic.Anthropic,
) -> None:
    batch = client.messages.batches.create(requests=requests_of("a"))
    (line,) = client.messages.batches.results(batch.id)
    assert line.custom_id == "a"
    assert line.result.type == "succeeded"
    message = client.messages.create(**ask())
    assert line.result.message.content == message.content
    assert line.result.message.usage.service_tier == "batch"


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({}, "invalid_request_error"),
        (ask(model="claude-nobody"), "not_found_error"),
        (ask(stream=True), "invalid_request_error"),
    ],
)
def test_bad_request_of_a_batch_is_an_errored_result(
    client: anthropic.Anthropic, params: Any, kind: str
) -> None:
    requests = [{"custom_id": "bad", "params": params}, *requests_of("good")]
    batch = client.messages.batches.create(requests=requests)
    bad, good = client.messages.batches.results(batch.id)
    assert bad.result.type == "errored"
    assert bad.result.error.error.type == kind
    assert good.result.type == "succeeded"
    assert client.messages.batches.retrieve(batch.id).request_counts.errored == 1


def test_batches_are_listed_newest_first_over_several_pages(
    client: anthropic.Anthropic,
) -> None:
    ids = [
        client.messages.batches.create(requests=requests_of("a")).id for _ in range(5)
    ]
    newest_first = ids[::-1]
    assert [b.id for b in client.messages.batches.list(limit=2)] == newest_first
    page = client.messages.batches.list(before_id=ids[0], limit=2)
    assert [b.id for b in page.data] == [ids[2], ids[1]]
    assert page.has_more
    assert (page.first_id, page.last_id) == (ids[2], ids[1])


def test_batch_in_progress_takes_its_time_by_the_clock(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    sandbox.objects.batch_seconds = 60
    batch = client.messages.batches.create(requests=requests_of("a"))
    assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.delete(batch.id)
    with pytest.raises(anthropic.AnthropicError, match="Has it finished"):
        client.messages.batches.results(batch.id)
    sandbox.clock.advance(61)
    assert client.messages.batches.retrieve(batch.id).processing_status == "ended"


def test_canceled_batch_ends_with_canceled_results(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    sandbox.objects.batch_seconds = 60
    batch = client.messages.batches.create(requests=requests_of("a"))
    canceled = client.messages.batches.cancel(batch.id)
    assert canceled.processing_status == "canceling"
    assert canceled.cancel_initiated_at is not None
    assert client.messages.batches.retrieve(batch.id).request_counts.canceled == 1
    (line,) = client.messages.batches.results(batch.id)
    assert line.result.type == "canceled"
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.cancel(batch.id)


def test_batch_that_takes_over_a_day_expires(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    sandbox.objects.batch_seconds = 100_000
    batch = client.messages.batches.create(requests=requests_of("a"))
    sandbox.clock.advance(timedelta(hours=24, seconds=1))
    (line,) = client.messages.batches.results(batch.id)
    assert line.result.type == "expired"


def test_deleted_batch_is_gone(client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests_of("a"))
    deleted = client.messages.batches.delete(batch.id)
    assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)


# Files


def test_file_comes_back_byte_by_byte(client: anthropic.Anthropic) -> None:
    uploaded = client.files.upload(file=("dir/naïve.bin", BINARY, "image/png"))
    assert uploaded.filename == "naïve.bin"
    assert (uploaded.mime_type, uploaded.size_bytes) == ("image/png", len(BINARY))
    assert uploaded.downloadable
    assert client.files.retrieve_metadata(uploaded.id) == uploaded
    assert client.files.download(uploaded.id).read() == BINARY


def test_empty_file_comes_back_empty(client: anthropic.Anthropic) -> None:
    uploaded = client.files.upload(file=("none.txt", b""))
    assert (uploaded.mime_type, uploaded.size_bytes) == ("text/plain", 0)
    assert client.files.download(uploaded.id).read() == b""


def test_files_are_listed_newest_first_over_several_pages(
    client: anthropic.Anthropic,
) -> None:
    ids = [client.files.upload(file=("a.txt", b"a")).id for _ in range(5)]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
    page = client.files.list(limit=2)
    client.files.delete(ids[3])
    assert [file.id for file in page.get_next_page().data] == [ids[2], ids[1]]


def test_files_can_be_listed_by_id(client: anthropic.Anthropic) -> None:
    ids = [client.files.upload(file=("a.txt", b"a")).id for _ in range(3)]
    page = client.files.list(ids=[ids[0], ids[2], "file_unknown"])
    assert [file.id for file in page.data] == [ids[2], ids[0]]
    assert page.next_page is None


def test_deleted_file_is_gone(client: anthropic.Anthropic) -> None:
    uploaded = client.files.upload(file=("a.txt", b"a"))
    assert client.files.delete(uploaded.id).type == "file_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.files.download(uploaded.id)


def test_expired_file_says_so(client: anthropic.Anthropic, sandbox: Sandbox) -> None:
    uploaded = client.files.upload(file=("a.txt", b"a"), expires_in_seconds=3600)
    assert uploaded.expires_at == uploaded.created_at + timedelta(hours=1)
    sandbox.clock.advance(3601)
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.files.download(uploaded.id)
    assert caught.value.error_code == "file_expired"


def test_upload_can_be_made_not_downloadable(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    sandbox.objects.uploads_are_downloadable = False
    uploaded = client.files.upload(file=("a.txt", b"a"))
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.files.download(uploaded.id)
    assert caught.value.error_code == "file_not_downloadable"


# Skills


def test_skill_is_described_by_its_manual(client: anthropic.Anthropic) -> None:
    skill = client.skills.create(files=skill_files())
    assert (skill.display_name, skill.source.type) == ("greet", "custom")
    assert client.skills.retrieve(skill.id) == skill
    version = client.skills.versions.retrieve("latest", skill_id=skill.id)
    assert version.id == skill.latest_version_id
    assert (version.name, version.description) == ("greet", "Greets people.")


def test_skills_and_versions_are_listed_newest_first(
    client: anthropic.Anthropic,
) -> None:
    skills = [
        client.skills.create(files=skill_files(), display_name=f"Number {number}")
        for number in range(3)
    ]
    shown = [skill.display_name for skill in client.skills.list(limit=2)]
    assert shown == ["Number 2", "Number 1", "Number 0"]
    assert list(client.skills.list(source="anthropic")) == []
    first = skills[0]
    added = client.skills.versions.create(first.id, files=skill_files())
    ids = [version.id for version in client.skills.versions.list(first.id, limit=1)]
    assert ids == [added.id, first.latest_version_id]
    assert client.skills.retrieve(first.id).latest_version_id == added.id


def test_skill_content_comes_as_an_archive(client: anthropic.Anthropic) -> None:
    skill = client.skills.create(files=skill_files())
    content = client.beta.skills.versions.download("latest", skill_id=skill.id)
    with zipfile.ZipFile(io.BytesIO(content.read())) as archive:
        assert archive.namelist() == ["greet/SKILL.md", "greet/more/words.txt"]
        assert archive.read("greet/SKILL.md") == MANUAL


def test_versions_can_be_deleted_down_to_one(client: anthropic.Anthropic) -> None:
    skill = client.skills.create(files=skill_files())
    added = client.skills.versions.create(skill.id, files=skill_files())
    deleted = client.skills.versions.delete(added.id, skill_id=skill.id)
    assert (deleted.id, deleted.type) == (added.id, "skill_version_deleted")
    with pytest.raises(anthropic.BadRequestError):
        client.skills.versions.delete(skill.latest_version_id, skill_id=skill.id)
    assert client.skills.delete(skill.id).type == "skill_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.skills.versions.list(skill.id)


# Containers


def test_container_is_made_and_named_again(
    client: anthropic.Anthropic, other: anthropic.Anthropic
) -> None:
    skill = client.skills.create(files=skill_files())
    wanted: Any = [{"type": "custom", "skill_id": skill.id, "version": "latest"}]
    first = client.messages.create(**ask(container={"skills": wanted}))
    assert first.container is not None
    assert first.container.skills is not None
    assert first.container.skills[0].version == skill.latest_version_id
    again = client.messages.create(**ask(container=first.container.id))
    assert again.container == first.container
    with pytest.raises(anthropic.NotFoundError, match=first.container.id):
        other.messages.create(**ask(container=first.container.id))


def test_streamed_answer_has_its_container(client: anthropic.Anthropic) -> None:
    tool: Any = {"type": "code_execution_20250825", "name": "code_execution"}
    with client.messages.stream(**ask(tools=[tool])) as stream:
        streamed = stream.get_final_message()
    assert streamed.container is not None
    named = {"id": streamed.container.id}
    with client.messages.stream(**ask(container=named)) as stream:
        assert stream.get_final_message().container == streamed.container


def test_container_expires(client: anthropic.Anthropic, sandbox: Sandbox) -> None:
    made = client.messages.create(**ask(container={}))
    assert made.container is not None
    sandbox.clock.advance(timedelta(days=30))
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**ask(container=made.container.id))


# Threads


BETAS = ["message-threads-2026-08-12"]
CREATE = {"thread": {"type": "create"}, "betas": BETAS}


def after(message_id: str) -> dict[str, Any]:
    thread = {"type": "continue", "previous_message_id": message_id}
    return {"thread": thread, "betas": BETAS}


def code_of(client: anthropic.Anthropic, message_id: str) -> tuple[int, str | None]:
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.beta.messages.create(**ask(**after(message_id)))
    return caught.value.status_code, caught.value.error_code


def test_thread_goes_on_from_its_latest_answer_only(
    client: anthropic.Anthropic,
) -> None:
    first = client.beta.messages.create(**ask(**CREATE))
    second = client.beta.messages.create(**ask(**after(first.id)))
    assert second.id != first.id
    assert code_of(client, first.id) == (400, "thread_already_continued")
    with client.beta.messages.stream(**ask(**after(second.id))) as stream:
        third = stream.get_final_message()
    client.beta.messages.create(**ask(**after(third.id)))


def test_thread_is_not_found_on_another_account(
    client: anthropic.Anthropic, other: anthropic.Anthropic
) -> None:
    first = client.beta.messages.create(**ask(**CREATE))
    assert code_of(other, first.id) == (404, "thread_not_found")
    client.beta.messages.create(**ask(**after(first.id)))


def test_answer_without_a_thread_cannot_be_continued(
    client: anthropic.Anthropic,
) -> None:
    plain = client.beta.messages.create(**ask())
    assert code_of(client, plain.id) == (404, "thread_not_found")


def test_thread_lives_five_minutes_after_its_last_request(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    first = client.beta.messages.create(**ask(**CREATE))
    sandbox.clock.advance(240)
    second = client.beta.messages.create(**ask(**after(first.id)))
    sandbox.clock.advance(240)
    third = client.beta.messages.create(**ask(**after(second.id)))
    sandbox.clock.advance(300)
    assert code_of(client, third.id) == (404, "thread_not_found")


def test_thread_lives_an_hour_at_most(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    last = client.beta.messages.create(**ask(**CREATE))
    for _ in range(14):
        sandbox.clock.advance(250)
        last = client.beta.messages.create(**ask(**after(last.id)))
    sandbox.clock.advance(250)
    assert code_of(client, last.id) == (404, "thread_not_found")


def test_thread_keeps_the_tools_it_was_made_with(client: anthropic.Anthropic) -> None:
    tools = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    choice = {"tool_choice": {"type": "any"}}
    first = client.beta.messages.create(**ask(tools=tools, **CREATE))
    second = client.beta.messages.create(**ask(**choice, **after(first.id)))
    assert second.content[-1].type == "tool_use"
    with pytest.raises(anthropic.BadRequestError, match="tools"):
        client.beta.messages.create(**ask(tools=tools, **after(second.id)))


def test_thread_needs_its_beta(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="thread"):
        client.beta.messages.create(**ask(thread={"type": "create"}))


@pytest.mark.parametrize("step", [{"status": 529}, {"error_at_frame": 2}])
def test_failed_turn_does_not_continue_the_thread(
    client: anthropic.Anthropic, sandbox: Sandbox, step: dict[str, Any]
) -> None:
    first = client.beta.messages.create(**ask(**CREATE))
    sandbox.script.add("ada", step)
    with (
        pytest.raises(anthropic.APIStatusError),
        client.beta.messages.stream(**ask(**after(first.id))) as stream,
    ):
        stream.until_done()
    client.beta.messages.create(**ask(**after(first.id)))


def test_tool_runner_goes_on_in_its_thread(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    called: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: Where.
        """
        called.append(city)
        return "Sunny"

    turn: Any = {"role": "user", "content": "Please call get_weather."}
    runner = client.beta.messages.tool_runner(
        model="claude-opus-5-5", max_tokens=1000, messages=[turn], tools=[get_weather]
    )
    assert runner.until_done().stop_reason == "end_turn"
    assert called == ["sandbox"]
    assert [item.kind for item in sandbox.objects.owned()] == ["thread", "thread"]


def test_dead_threads_are_forgotten(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    client.beta.messages.create(**ask(**CREATE))
    sandbox.clock.advance(300)
    last = client.beta.messages.create(**ask(**CREATE))
    assert [item.id for item in sandbox.objects.owned()] == [last.id]


def test_broken_request_makes_no_container(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"cut_at_byte": "before_head"})
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**ask(container={}))
    assert sandbox.objects.owned() == []
