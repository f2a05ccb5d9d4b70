"""A process that races others for places: `python -m tests.sessions_limit.racer WORDS`.

It reads orders, one on a line, and answers each with one line.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parents[2]


class Racer:
    """The other end of such a process."""

    def __init__(self, words: dict[str, str], data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(words)],
            cwd=_PROJECT,
            env={
                "PATH": os.environ["PATH"],
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "TEST_DATA_DIR": str(data_dir),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **order: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


# --- in the process; what needs Django is imported once that is set up


async def _race(backend: Any, order: dict[str, Any]) -> dict[str, list[str]]:
    """All at once; tell by name how each fared."""
    from claudeproxy import db
    from sessions_limit.backends.base import Entered
    from sessions_limit.backends.redis import RedisBackend
    from tests.sessions_limit import stores

    run = db.run_long if isinstance(backend, RedisBackend) else db.run
    fates: dict[str, list[str]] = {}

    async def enter(name: str, worker: str) -> None:
        attempt = partial(
            stores.enter,
            backend,
            name,
            scope=order["scope"],
            limit=order["limit"],
            ttl=timedelta(seconds=order["ttl_seconds"]),
            worker=worker,
            max_requests=order["max_requests"],
        )
        answer = await run(attempt)
        fate = "entered" if isinstance(answer, Entered) else answer.why.value
        fates.setdefault(fate, []).append(name)

    workers = order["workers"] or [str(os.getpid())] * len(order["names"])
    await asyncio.gather(*map(enter, order["names"], workers))
    return fates


def _main() -> None:
    import django

    django.setup()
    from tests.sessions_limit import stores

    with stores.opened(json.loads(sys.argv[1])) as backend:
        for line in sys.stdin:
            order = json.loads(line)
            fates = asyncio.run(_race(backend, order))
            if order["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            sys.stdout.write(json.dumps(fates) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main()
