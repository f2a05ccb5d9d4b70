"""Runs the sandbox from the command line."""

import argparse
import logging
import sys
from datetime import timedelta
from typing import Final

from claudeproxy.sandbox import server
from claudeproxy.sandbox.errors import NotLoopbackError
from claudeproxy.sandbox.oauth.grants import ACCESS_LIFETIME
from claudeproxy.sandbox.oauth.server import DEFAULT_CLIENT_ID
from claudeproxy.sandbox.state import Sandbox

LONGEST_SECONDS: Final = 365 * 24 * 3600


def _seconds(text: str) -> int:
    seconds = int(text)
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError("must be between a second and a year")
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; the result is the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m claudeproxy.sandbox", description="A stand-in for Claude."
    )
    parser.add_argument("--host", default=server.DEFAULT_HOST, help="loopback only")
    parser.add_argument("--port", default=server.DEFAULT_PORT, type=int)
    parser.add_argument(
        "--client-id",
        default=DEFAULT_CLIENT_ID,
        help="the OAuth client that may sign people in (default: %(default)s)",
    )
    parser.add_argument(
        "--access-token-seconds",
        default=int(ACCESS_LIFETIME.total_seconds()),
        type=_seconds,
        help="how long an access token lives (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # The line that says where we listen is enough.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    sandbox = Sandbox(
        client_id=options.client_id,
        access_token_lifetime=timedelta(seconds=options.access_token_seconds),
    )
    try:
        server.run(options.host, options.port, sandbox)
    except (NotLoopbackError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
