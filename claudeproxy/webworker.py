"""A web worker: uvicorn, on the listening socket that the supervisor opened."""

import math
import socket

import uvicorn

from claudeproxy.conf import conf

APP = "claudeproxy.asgi:application"

# For answers that the drain cut at its end: they still write their last event.
_SECONDS_AFTER_DRAIN = 5
# Longer than reverse proxies keep an idle connection (60 s is their usual default), so
# that it is not us who closes one while a request is already on its way.
_KEEP_ALIVE_SECONDS = 75


def run(listener: socket.socket, app: str = APP) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    server = uvicorn.Server(
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
        )
    )
    server.run(sockets=[listener])
    return 0


def seconds_to_stop() -> int:
    """Say how long a worker may take to end after it was told to."""
    return math.ceil(conf.drain_timeout.total_seconds()) + _SECONDS_AFTER_DRAIN
