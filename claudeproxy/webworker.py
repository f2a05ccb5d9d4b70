"""A web worker: uvicorn, on the listening socket that the supervisor opened."""

import asyncio
import math
import socket
from collections.abc import Callable

import uvicorn

from claudeproxy.conf import conf

APP = "claudeproxy.asgi:application"

# For answers that the drain cut at its end: they still write their last event.
_SECONDS_AFTER_DRAIN = 5
# Longer than reverse proxies keep an idle connection (60 s is their usual default), so
# that it is not us who closes one while a request is already on its way.
_KEEP_ALIVE_SECONDS = 75
# Until a connection that the kernel gave us is one that uvicorn knows of.
_ACCEPT_SECONDS = 0.1


class _Server(uvicorn.Server):
    """uvicorn, which says when it serves and loses no connection when it ends."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, then end the connections.

        They are told twice: uvicorn comes to know only after a moment of those that
        were accepted last.
        """
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(_ACCEPT_SECONDS)
        await super().shutdown(sockets)


def run(
    listener: socket.socket,
    app: str = APP,
    on_ready: Callable[[], None] = lambda: None,
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    server = _Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="proxy.protocol:GatewayProtocol",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=seconds_to_stop(),
        ),
        on_ready,
    )
    server.run(sockets=[listener])
    return 0


def seconds_to_stop() -> int:
    """Say how long a worker may take to end after it was told to."""
    return math.ceil(conf.drain_timeout.total_seconds()) + _SECONDS_AFTER_DRAIN
