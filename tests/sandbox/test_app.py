"""The application on any ASGI server, played here by the tests."""

import asyncio
import json
from typing import Any

import pytest

from claudeproxy.sandbox.app import SandboxApp
from claudeproxy.sandbox.errors import ConnectionDroppedError
from claudeproxy.sandbox.log import Outcome
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask

Event = dict[str, Any]


class Played:
    """The server's part for one request: what the application gets and sends."""

    def __init__(self, sandbox: Sandbox, **fields: Any) -> None:
        self.app = SandboxApp(sandbox)
        self.sent: list[Event] = []
        # Set as soon as the application waits for the client to leave.
        self.is_watched = asyncio.Event()
        body = json.dumps(ask(**fields)).encode()
        self.events: list[Event] = [{"type": "http.request", "body": body}]

    async def run(self) -> None:
        headers = [(b"x-api-key", b"sk-sandbox-ada"), (b"anthropic-version", b"1")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "query_string": b"",
            "headers": headers,
        }

        await self.app(scope, self.receive, self.send)

    async def receive(self) -> Event:
        if self.events:
            return self.events.pop()
        self.is_watched.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing more ever comes")

    async def send(self, event: Any) -> None:
        self.sent.append(event)


async def test_lifespan_events_are_acknowledged() -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Event:
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await SandboxApp(Sandbox())({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("step", [{"cut_at_byte": 5}, {"reset": "before_head"}])
async def test_a_break_raises_where_the_server_offers_no_better_way(
    step: dict[str, Any],
) -> None:
    sandbox = Sandbox()
    sandbox.script.add("ada", step)
    played = Played(sandbox)
    with pytest.raises(ConnectionDroppedError):
        await played.run()
    assert not any(event.get("more_body") is False for event in played.sent)
    assert sandbox.log.after()[0].outcome in (Outcome.CUT, Outcome.RESET)


async def test_a_cancelled_request_counts_as_a_client_that_left() -> None:
    sandbox = Sandbox()
    sandbox.script.add("ada", {"hang": "before_head"})
    played = Played(sandbox)
    task = asyncio.create_task(played.run())
    await played.is_watched.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.log.after()[0].outcome is Outcome.CLIENT_GONE
    assert sandbox.log.in_flight == 0


async def test_frames_are_sent_one_by_one() -> None:
    played = Played(Sandbox(), stream=True)
    await played.run()
    bodies = [event["body"] for event in played.sent[1:]]
    assert all(body.endswith(b"\n\n") for body in bodies)
    assert len(bodies) == b"".join(bodies).count(b"\n\n")


async def test_no_task_is_left_after_an_answer() -> None:
    before = asyncio.all_tasks()
    await Played(Sandbox(), stream=True).run()
    assert asyncio.all_tasks() == before
