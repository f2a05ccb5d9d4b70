"""Serves a sandbox on the loopback interface, in this thread or in one of its own."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
import threading
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from claudeproxy.sandbox.app import SandboxApp
from claudeproxy.sandbox.errors import NotLoopbackError
from claudeproxy.sandbox.state import Sandbox
from claudeproxy.sandbox.wire import ABORT_EXTENSION

logger = logging.getLogger(__name__)

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 4010
# Longer than a pool of connections keeps an idle one, so that only the script
# closes connections under a client.
KEEP_ALIVE_SECONDS: Final = 300
START_SECONDS: Final = 10.0
BACKLOG: Final = 2048
TICK_SECONDS: Final = 0.1
LINGER_NONE: Final = struct.pack("ii", 1, 0)


class SandboxProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also lets the application end the connection."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on as given
        # Set here, since uvicorn's own switch changes the logger of the whole process.
        self.access_log = False

    def on_message_begin(self) -> None:
        """Put the way to end the connection into the scope of each request."""
        super().on_message_begin()
        # The type only foresees mappings; the value is between us and our application.
        extensions: dict[str, Any] = {ABORT_EXTENSION: self.abort}
        self.scope["extensions"] = extensions

    def abort(self, reset: bool) -> None:
        """Close the connection once all is written: with FIN, or with RST."""
        if self.transport.is_closing():
            return
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        # Not transport.abort(), which would throw away what is still to be written.
        self.transport.close()


class LoopbackServer(uvicorn.Server):
    """uvicorn, made to stop at once whatever still runs."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(
            uvicorn.Config(
                SandboxApp(sandbox),
                http=SandboxProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self.is_ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell the thread that waits for it."""
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        self.is_ready.set()

    async def main_loop(self) -> None:
        """Keep the date header fresh until told to stop."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), TICK_SECONDS)

    def stop(self) -> None:
        """Ask the server to end; from any thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything now: a hanging answer would never end by itself."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, SandboxProtocol):
                connection.transport.abort()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        for server in self.servers:
            await server.wait_closed()


class SandboxServer:
    """A sandbox served from a thread of its own, for as long as a with block lasts."""

    def __init__(
        self,
        sandbox: Sandbox | None = None,
        *,
        host: str = DEFAULT_HOST,
        port: int = 0,
    ) -> None:
        self.sandbox = sandbox or Sandbox()
        self._address = (loopback(host), port)
        self._server: LoopbackServer | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def start(self) -> None:
        """Listen, on a free port if none was named, and return when ready."""
        listener = _listen(*self._address)
        self.url = _url(listener)
        self._server = server = LoopbackServer(self.sandbox)
        self._thread = threading.Thread(
            target=server.run, args=([listener],), name="claude-sandbox", daemon=True
        )
        self._thread.start()
        if not server.is_ready.wait(START_SECONDS):
            self.stop()
            raise TimeoutError("the sandbox did not start")

    def stop(self) -> None:
        """Cut all connections and wait until the thread has ended."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join(START_SECONDS)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def run(
    host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, sandbox: Sandbox | None = None
) -> None:
    """Serve a sandbox until interrupted.

    Errors: NotLoopbackError for a host that others could reach; OSError if the port
    is taken.
    """
    listener = _listen(loopback(host), port)
    logger.info("Claude sandbox on %s, no model behind it", _url(listener))
    with contextlib.suppress(KeyboardInterrupt):
        LoopbackServer(sandbox or Sandbox()).run([listener])


def loopback(host: str) -> str:
    """Turn a host into a loopback address.

    Errors: NotLoopbackError if it is anything else; names are not looked up.
    """
    if host == "localhost":
        return DEFAULT_HOST
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return host
    raise NotLoopbackError(
        f"the sandbox accepts known keys, so it listens on loopback only, not on {host}"
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
