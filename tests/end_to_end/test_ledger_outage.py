"""Workers that are killed and a database that goes away cost no row."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from psycopg.rows import dict_row

from tests.end_to_end import gateway as gateways
from tests.end_to_end import postgres
from tests.end_to_end.checks import Peak
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.line import Line, line_to
from tests.end_to_end.load import (
    Caller,
    LostError,
    crowd,
    line,
    question,
    until_told,
    what_is_wrong,
)
from tests.end_to_end.rows import (
    Row,
    all_rows,
    by_id,
    is_anything_waiting,
    journalled,
    tokens_in,
    tokens_of,
)
from tests.end_to_end.sandbox_process import SandboxProcess, sandbox_running
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer
from usage import journal

pytestmark = pytest.mark.processes

# 100 and 60 are for who has the time.
KILLS = int(os.environ.get("LEDGER_KILLS", "8"))
AWAY_SECONDS = float(os.environ.get("LEDGER_AWAY_SECONDS", "10"))

WORKERS, CALLERS = 4, 16
# One that dies young again and again is started later and later. Of a few deaths that
# does not matter; many are so far apart that each worker has lived long enough.
SECONDS_BETWEEN_KILLS = 1.2 if KILLS <= 20 else 3.0
PAUSE_SECONDS = 0.1
SEED = 20_261_126


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    with sandbox_running(tmp_path) as sandbox:
        yield sandbox


# --- workers that are killed


@dataclass
class Seen:
    """What callers have of their requests."""

    whole: dict[str, Answer] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    sent: int = 0
    lost: int = 0  # without a byte of an answer

    async def ask(self, caller: Caller, data: bytes, *, stream: bool) -> None:
        self.sent += 1
        try:
            answer = await caller.ask(data)
        except (LostError, ConnectionError):
            self.lost += 1
            return
        request_id = answer.header("request-id")
        assert request_id
        if answer.is_whole:
            assert what_is_wrong(answer, stream=stream) == ""
            self.whole[request_id] = answer
        else:
            self.cut.add(request_id)


async def kill_workers(gateway: Gateway) -> None:
    """Kill them one after the other, each time the one that has lived longest."""
    draw = random.Random(SEED)  # noqa: S311  # when, not what
    for _ in range(KILLS):
        await asyncio.sleep(SECONDS_BETWEEN_KILLS * draw.uniform(0.8, 1.2))
        oldest = min(gateway.workers(), key=psutil.Process.create_time)
        oldest.send_signal(signal.SIGKILL)


async def test_killed_workers_lose_no_row_and_make_none_twice(
    template: Furnished, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    seen = Seen()
    sandbox.script("*", {"frames": 30, "frame_delay_ms": 5, "times": "forever"})
    with gateways.running(
        template, tmp_path, upstream_url=sandbox.url, workers=WORKERS
    ) as gateway:

        async def put(caller: Caller, number: int) -> None:
            stream = bool(number % 2)
            data = question(f"Question {number}", key=gateway.key, stream=stream)
            await seen.ask(caller, data, stream=stream)
            await asyncio.sleep(PAUSE_SECONDS)

        killing = asyncio.create_task(kill_workers(gateway))
        callers = await crowd(gateway.port, CALLERS, until_told(killing.done), put)
        await killing
        until(lambda: len(gateway.workers()) == WORKERS, within_seconds=30)
        # Whoever starts again stores what was left, its own and others'.
        until(lambda: not is_anything_waiting(gateway), within_seconds=70)

    assert journalled(gateway.data_dir) == (set(), set())
    assert list((gateway.data_dir / "journal").iterdir()) == []
    rows = all_rows(gateway)
    for request_id, answer in seen.whole.items():
        row = rows[request_id]
        assert (row["end_reason"], row["status"]) == ("complete", answer.status)
        assert tokens_of(row) == tokens_in(answer)
        assert not row["is_incomplete"]
    assert seen.cut <= rows.keys()
    ends = Counter(row["end_reason"] for row in rows.values())
    # Killed between its last line and its last byte, it has recorded a whole answer.
    assert {rows[request_id]["end_reason"] for request_id in seen.cut} <= {
        "crashed",
        "complete",
    }
    assert ends["crashed"] >= KILLS
    assert ends.keys() <= {"crashed", "complete", "client_gone"}
    # What reached the upstream had begun, and all that begins has a row.
    reached = sandbox.log()[-1]["seq"]
    sent = seen.sent + sum(caller.stale for caller in callers)
    assert reached <= len(rows) <= sent
    print(  # noqa: T201  # for who measures
        line(
            kills=KILLS,
            sent=sent,
            whole=len(seen.whole),
            cut=len(seen.cut),
            lost=seen.lost,
            reached=reached,
            rows=len(rows),
            **{str(end): count for end, count in ends.items()},
        )
    )


# --- a database that goes away

PER_SECOND = 50
GROWTH_BYTES = 15 * 1024**2
# The least that the two lines of a request take in the journal.
LEAST_BYTES = 500
# Whoever has waited for a database for long does not look every second.
SECONDS_TO_COME_BACK = 30 + AWAY_SECONDS


@dataclass(frozen=True)
class Apart:
    """A gateway whose database is at the other end of a line."""

    gateway: Gateway
    line: Line
    url: str

    def rows(self) -> dict[str, Row]:
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return by_id(connection.execute("SELECT * FROM usage_requestrow"))

    @property
    def waiting_bytes(self) -> int:
        return journal.backlog(self.gateway.data_dir / "journal").bytes


@pytest.fixture
def apart(sandbox: SandboxProcess, tmp_path: Path) -> Iterator[Apart]:
    server = urlsplit(postgres.SERVER)
    with (
        postgres.connected() as connection,
        postgres.database(connection) as name,
        line_to(server.hostname or "127.0.0.1", server.port or 5432) as line,
    ):
        user = server.netloc.rpartition("@")[0] or "postgres"
        direct = server._replace(path=f"/{name}").geturl()
        template = gateways.furnish(
            tmp_path / "template", accounts=("ada", "grace"), DATABASE_URL=direct
        )
        with gateways.running(
            template,
            tmp_path,
            upstream_url=sandbox.url,
            DATABASE_URL=f"postgresql://{user}@127.0.0.1:{line.port}/{name}",
        ) as gateway:
            yield Apart(gateway, line, direct)


async def test_database_that_is_away_fails_no_request_and_loses_no_row(
    apart: Apart,
) -> None:
    gateway, worker = apart.gateway, apart.gateway.worker()
    answers: dict[str, Answer] = {}
    wrong: Counter[str] = Counter()

    async def ask_for(seconds: float) -> None:
        """Ask at an even pace, as long as that."""
        began = time.monotonic()

        async def put(caller: Caller, number: int) -> None:
            due = began + number / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            stream = bool(number % 2)
            data = question(f"Question {number}", key=gateway.key, stream=stream)
            answer = await caller.ask(data)
            wrong[what_is_wrong(answer, stream=stream)] += 1
            answers[str(answer.header("request-id"))] = answer

        numbers = range(round(seconds * PER_SECOND))
        await crowd(gateway.port, CALLERS, numbers, put)

    await ask_for(2)
    until(lambda: len(apart.rows()) == len(answers) and not apart.waiting_bytes)
    stored = len(answers)

    with Peak(worker) as peak:
        apart.line.freeze()
        await ask_for(AWAY_SECONDS / 3)
        apart.line.cut()
        await ask_for(AWAY_SECONDS * 2 / 3)
        waiting = len(answers) - stored
        assert len(apart.rows()) == stored
        assert apart.waiting_bytes >= waiting * LEAST_BYTES
        # A worker that only waits for a connection says so after ten seconds.
        until(lambda: "usage_trouble" in gateway.log_text, within_seconds=30)
    waiting_bytes = apart.waiting_bytes

    apart.line.mend()
    mended = time.monotonic()
    await ask_for(2)
    until(
        lambda: len(apart.rows()) >= len(answers), within_seconds=SECONDS_TO_COME_BACK
    )
    back_after = time.monotonic() - mended

    assert wrong == {"": len(answers)}
    rows = apart.rows()
    assert rows.keys() == answers.keys()
    for request_id, answer in answers.items():
        row = rows[request_id]
        assert (row["end_reason"], row["status"]) == ("complete", 200)
        assert tokens_of(row) == tokens_in(answer)
    until(lambda: apart.waiting_bytes == 0)
    assert "usage_lost" not in gateway.log_text
    assert gateway.worker() == worker
    print(  # noqa: T201  # for who measures
        line(
            requests=len(answers),
            away_seconds=AWAY_SECONDS,
            waited=waiting,
            waiting_bytes=waiting_bytes,
            grown_mb=peak.grown_bytes / 1024**2,
            stored_after=back_after,
        )
    )
    assert peak.grown_bytes <= GROWTH_BYTES
