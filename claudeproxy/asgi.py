"""The ASGI application: the gateway's handler for the API, Django's for the rest.

Django refuses the lifespan scope, so it is served here: the gateway opens and closes
with the worker.
"""

import asyncio
import contextlib
import os
import signal
from types import FrameType
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "claudeproxy.settings")
django.setup(set_prefix=False)


from claudeproxy import pages  # noqa: E402
from proxy import gateway  # noqa: E402
from proxy.gateway import Gateway  # noqa: E402
from proxy.handler import GatewayHandler  # noqa: E402

_api = GatewayHandler()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one connection, or the worker's life itself."""
    if scope["type"] == "lifespan":
        await _live(scope, receive, send)
    elif scope["type"] == "http" and _is_api(scope):
        await _api(scope, receive, send)
    else:
        await pages.serve(scope, receive, send)


def _is_api(scope: Any) -> bool:
    path = scope["path"]
    return (
        path.startswith("/v1")
        or path == "/health"
        or (scope["method"] == "HEAD" and path in {"/", "/api/hello"})
    )


async def _live(scope: Any, receive: Any, send: Any) -> None:
    """Run the gateway from the server's start-up message to its shutdown message."""
    await receive()
    async with contextlib.AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(gateway.running())
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        scope["state"]["gateway"] = opened
        _drain_on_signals(opened)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _drain_on_signals(opened: Gateway) -> None:
    """Start the drain on SIGTERM and SIGINT, then do what the server would do.

    The server only waits for open answers, and at last cuts them without a word.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)

        def handle(
            received: int, frame: FrameType | None, previous: Any = previous
        ) -> None:
            loop.call_soon_threadsafe(opened.start_drain)
            if callable(previous):
                previous(received, frame)

        with contextlib.suppress(ValueError):  # not the main thread: a test's server
            signal.signal(number, handle)
