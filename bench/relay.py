"""The yardstick: the least that a relay on this stack can do and still be honest.

The same server and the same HTTP client as the gateway, with nothing between them: no
key, no account, no journal. What the gateway costs above this is what it adds itself.
"""

import argparse
from collections.abc import Iterable
from typing import Any

import aiohttp
import uvicorn

HOP_BY_HOP = {  # RFC 9110, section 7.6.1
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
REPLACED = HOP_BY_HOP | {b"host", b"content-length"}


def end_to_end(
    headers: Iterable[tuple[bytes, bytes]], dropped: set[bytes]
) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in dropped]


async def read_body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the caller left before its request was whole")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


class Relay:
    """An ASGI application that forwards every request to one upstream."""

    session: aiohttp.ClientSession  # there from the server's start to its end

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["type"] == "http":
            await self.forward(scope, receive, send)

    async def live(self, receive: Any, send: Any) -> None:
        await receive()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600),
        )
        async with self.session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def forward(self, scope: Any, receive: Any, send: Any) -> None:
        target = self.upstream + scope["raw_path"].decode("ascii")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("ascii")
        async with self.session.request(
            scope["method"],
            target,
            data=await read_body(receive) or None,
            headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in end_to_end(scope["headers"], REPLACED)
            ],
            allow_redirects=False,
        ) as answer:
            headers = end_to_end(answer.raw_headers, HOP_BY_HOP)
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": headers,
                }
            )
            async for part in answer.content.iter_any():
                await send(
                    {"type": "http.response.body", "body": part, "more_body": True}
                )
        await send({"type": "http.response.body", "body": b""})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relay")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, metavar="URL")
    options = parser.parse_args()
    uvicorn.run(
        Relay(options.upstream),
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
