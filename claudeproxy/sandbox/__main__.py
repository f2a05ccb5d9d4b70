"""Runs the sandbox from the command line."""

import argparse
import logging
import sys

from claudeproxy.sandbox import server
from claudeproxy.sandbox.errors import NotLoopbackError


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; the result is the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m claudeproxy.sandbox", description="A stand-in for Claude."
    )
    parser.add_argument("--host", default=server.DEFAULT_HOST, help="loopback only")
    parser.add_argument("--port", default=server.DEFAULT_PORT, type=int)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # The line that says where we listen is enough.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        server.run(options.host, options.port)
    except (NotLoopbackError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
