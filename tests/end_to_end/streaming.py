"""Many streams that are open at the same time, for as long as a test wants."""

import contextlib
from collections.abc import Iterator

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Wire, ask, request


@contextlib.contextmanager
def open_streams(
    gateway: Gateway, sandbox: Sandbox, count: int
) -> Iterator[list[Wire]]:
    """Hold streams that have begun and do not end."""
    sandbox.script.add("*", {"hang": 6, "times": count})
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(count)]
        for number, wire in enumerate(wires):
            body = ask(f"Stream {number}", stream=True)
            wire.send(request(body, key=gateway.key))
        for wire in wires:
            wire.receive_until(b"event: content_block_delta")
        yield wires
