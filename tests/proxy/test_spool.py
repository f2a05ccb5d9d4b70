import asyncio
import os
import re
import secrets
import stat
import threading
import time

import pytest
from structlog.testing import capture_logs

from proxy import spool
from proxy.spool import LONGEST_MATCH_BYTES, FileBody, SpoolError

ID = re.compile(rb'"(file_[a-z0-9]{1,40})"')


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "data"
    return settings.DATA_DIR / "bodies"


@pytest.fixture
async def body():
    body = FileBody()
    yield body
    body.close()


def files_in(folder):
    """What this process has open there, by name or without."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return [link for link in links if target(link).startswith(f"{folder}/")]


def target(link):
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


async def until_none_in(folder):
    async with asyncio.timeout(10):
        while files_in(folder):  # noqa: ASYNC110  # nobody can tell it
            await asyncio.sleep(0.01)


async def test_a_body_is_read_as_it_was_written_as_often_as_it_is_asked_for(body):
    sent = secrets.token_bytes(2_500_000)
    await body.append(sent[:1_100_000])
    await body.append(bytearray(sent[1_100_000:]))

    for _ in range(2):
        assert b"".join([piece async for piece in body.pieces()]) == sent
    assert body.size == len(body) == len(sent)


async def test_two_readers_do_not_disturb_each_other(body):
    sent = secrets.token_bytes(3_000_000)
    await body.append(sent)

    async def read():
        return b"".join([piece async for piece in body.pieces()])

    first, second = await asyncio.gather(read(), read())
    assert first == second == sent


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [(0, 3, b"abc"), (2, 2, b"cd"), (4, 9, b"ef"), (6, 1, b""), (99, 1, b"")],
)
async def test_a_part_is_read_up_to_the_end(body, start, size, expected):
    await body.append(b"abcdef")

    assert await body.read(start, size) == expected


async def test_a_file_has_no_name_and_only_its_owner_may_use_it(body, folder):
    await body.append(b"x")
    (link,) = files_in(folder)

    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(os.stat(link).st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_body_that_is_closed_is_gone_and_may_be_closed_again(folder):
    body = FileBody()
    await body.append(b"x")
    assert files_in(folder)
    body.close()
    body.close()
    await until_none_in(folder)

    with pytest.raises(ValueError, match="closed"):
        await body.read(0, 1)


async def test_a_cancelled_write_leaves_no_file(folder):
    for _ in range(20):
        body = FileBody()
        writing = asyncio.create_task(body.append(bytes(5_000_000)))
        await asyncio.sleep(0.001)
        writing.cancel()
        await asyncio.wait([writing])
        body.close()

    await until_none_in(folder)


async def test_a_slow_disk_does_not_hold_up_the_event_loop(body):
    await body.append(b"x")
    with body._lock:
        reading = asyncio.create_task(body.read(0, 1))
        before = time.monotonic()
        await asyncio.sleep(0.05)
        body.close()

        assert not reading.done()
        assert time.monotonic() - before < 2
    await asyncio.wait([reading])


async def test_disk_work_is_done_in_threads_of_its_own(body):
    await body.append(b"x")
    names = {thread.name for thread in threading.enumerate()}

    assert any(name.startswith("spool") for name in names)


# --- disks that fail


async def refused(body, sent=b"x"):
    with capture_logs() as lines, pytest.raises(SpoolError) as caught:
        await body.append(sent)
    (line,) = lines
    assert line["event"] == "body_not_kept"
    return caught.value, line


@pytest.mark.parametrize("expected_bytes", [0, 10])
async def test_the_last_of_the_disk_is_left_to_others(monkeypatch, expected_bytes):
    monkeypatch.setattr(spool, "_RESERVE_BYTES", 2**62)
    body = FileBody(expected_bytes)
    error, line = await refused(body)
    body.close()

    assert error.http_status == 507
    assert error.should_retry is False
    assert "No space left on device" in str(error)
    assert "DATA_DIR" in str(error)
    assert line["reason"] == "No space left on device"


async def test_a_body_that_will_not_fit_is_refused_at_its_first_piece(folder):
    body = FileBody(expected_bytes=2**60)
    await refused(body)
    body.close()

    assert body.size == 0
    await until_none_in(folder)


async def test_a_folder_that_cannot_be_used_is_said_to_the_operator(body, folder):
    folder.parent.mkdir()
    folder.write_text("in the way")
    _, line = await refused(body)

    assert line["folder"] == str(folder)


async def test_a_file_that_lost_its_end_is_an_error_and_no_short_body(body):
    await body.append(b"abcdef")
    body._file.truncate(3)

    with capture_logs() as lines, pytest.raises(SpoolError):
        await body.read(0, 6)
    assert [line["event"] for line in lines] == ["body_not_kept"]


# --- search


async def test_what_is_searched_for_is_found_wherever_it_stands(body, monkeypatch):
    monkeypatch.setattr(spool, "_SEARCHED_BYTES", 10_000)
    sent = bytearray(b" " * 60_000)
    places = [0, 9_980, 9_999, 14_090, 19_995, 30_001, 60_000 - 10]
    for number, place in enumerate(places):
        name = b'"file_%02d"' % number
        sent[place : place + len(name)] = name
    await body.append(sent)

    found = await body.find_all(ID, limit=100)

    assert found == {b"file_%02d" % number for number in range(len(places))}


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 8, 9, 64])
async def test_a_search_in_pieces_finds_what_one_of_the_whole_finds(
    body, monkeypatch, piece
):
    monkeypatch.setattr(spool, "_SEARCHED_BYTES", piece)
    sent = b'"file_a""file_b"file_c"aaaaaaa"file_d"x"file_e""file_f"'
    await body.append(sent)

    for pattern in (ID, re.compile(rb"a{2}|file"), re.compile(rb'"[a-z_]+"')):
        expected = {match[pattern.groups] for match in pattern.finditer(sent)}
        assert await body.find_all(pattern, limit=100) == expected


async def test_a_match_as_long_as_may_be_is_found_whole(body, monkeypatch):
    monkeypatch.setattr(spool, "_SEARCHED_BYTES", 1000)
    longest = b"<" + b"x" * (LONGEST_MATCH_BYTES - 2) + b">"
    await body.append(b" " * 999 + longest + b" " * 5000)

    assert await body.find_all(re.compile(rb"<x+>"), limit=2) == {longest}


async def test_a_search_ends_with_as_many_results_as_were_asked_for(body):
    await body.append(b"".join(b'"file_%d"' % number for number in range(1000)))

    assert len(await body.find_all(ID, limit=10)) == 10
    assert len(await body.find_all(ID, limit=1000)) == 1000


async def test_the_event_loop_runs_on_while_a_large_body_is_searched(body):
    for _ in range(48):
        await body.append(b"x" * 1024**2)
    # A pattern that is at work for seconds, and would not let go in between.
    searching = asyncio.create_task(body.find_all(re.compile(b"x{1,20}y"), limit=1))
    turns = 0
    async with asyncio.timeout(60):
        while not searching.done() and turns < 20:
            await asyncio.sleep(0.001)
            turns += 1

    assert turns == 20
    assert not searching.done()
    body.close()
    with pytest.raises(ValueError, match="closed"):
        await searching
