import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import gate
from proxy.errors import UpstreamUnavailableError
from proxy.sse import FrameReader

START = b'event: message_start\ndata: {"type": "message_start"}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
BLOCK = b'event: content_block_start\ndata: {"index": 0}\n\n'
DELTA = b'event: content_block_delta\ndata: {"text": "event: error"}\n\n'
STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
ERROR_DATA = b'{"type": "error", "error": {"type": "overloaded_error"}}'
ERROR = b"event: error\ndata: " + ERROR_DATA + b"\n\n"
WHOLE = START + PING + BLOCK + DELTA + STOP


async def chunks(*pieces):
    for piece in pieces:
        yield piece


async def silent_after(*pieces):
    for piece in pieces:
        yield piece
    await asyncio.Event().wait()


async def everything(opened, rest, frames):
    out = opened.held
    async for chunk in gate.resumed(opened.pending, rest):
        out += frames.feed(chunk)
    return out + frames.finish()


async def hold(source, silence=60.0):
    frames = FrameReader()
    return await gate.hold(source, frames, silence), frames


async def test_what_comes_before_content_is_held_and_nothing_else():
    source = chunks(START, PING, BLOCK, DELTA, STOP)
    opened, frames = await hold(source)

    assert opened == gate.Opened(START + PING + BLOCK)
    assert await everything(opened, source, frames) == WHOLE


@pytest.mark.parametrize("before", [[], [START], [START, PING], [PING, START]])
async def test_an_error_before_content_fails(before):
    opened, _ = await hold(chunks(*before, ERROR))

    assert opened.is_failed
    assert opened.held == b"".join(before) + ERROR
    assert gate.error_body(opened.held) == ERROR_DATA


async def test_an_error_after_content_is_the_callers_to_see():
    source = chunks(START, BLOCK, ERROR)
    opened, frames = await hold(source)

    assert not opened.is_failed
    assert await everything(opened, source, frames) == START + BLOCK + ERROR


async def test_an_error_that_came_together_with_content_can_still_be_moved():
    opened, _ = await hold(chunks(START + BLOCK + ERROR))

    assert opened.is_failed


@pytest.mark.parametrize("before", [[], [START], [START, PING, b"event: content_bl"]])
async def test_an_end_without_content_fails(before):
    opened, frames = await hold(chunks(*before))

    assert opened.is_failed
    assert frames.last_event is None


@pytest.mark.parametrize("before", [[], [START], [START, PING], [START, BLOCK[:9]]])
async def test_a_frame_that_makes_no_sense_is_a_stream_that_breaks(before):
    with pytest.raises(UpstreamUnavailableError):
        await hold(chunks(*before, b"data: {}\n\n", BLOCK, STOP))


async def test_one_that_came_together_with_content_can_still_be_moved():
    with pytest.raises(UpstreamUnavailableError):
        await hold(chunks(START + BLOCK + b"event: x\ndata: oops\n\n"))


async def test_a_text_that_looks_like_an_error_is_content():
    opened, _ = await hold(chunks(START, DELTA))

    assert opened == gate.Opened(START + DELTA)


@pytest.mark.parametrize("before", [START, PING, b": a comment\n\n"])
async def test_the_gate_opens_a_moment_after_the_stream_has_begun(before):
    source = silent_after(before)
    opened, _ = await hold(source, silence=0.01)

    assert opened.held == before
    assert not opened.is_failed
    assert opened.pending is not None
    await gate.end(opened.pending)


async def test_pings_do_not_keep_the_gate_closed():
    async def pinging():
        yield START
        while True:
            await asyncio.sleep(0.001)
            yield PING

    async with asyncio.timeout(5):
        opened, _ = await hold(pinging(), silence=0.01)
    if opened.pending is not None:
        await gate.end(opened.pending)

    assert not opened.is_failed


async def test_what_was_being_read_when_the_gate_opened_comes_next():
    is_time = asyncio.Event()

    async def late():
        yield START
        await is_time.wait()
        yield BLOCK
        yield STOP

    source = late()
    opened, frames = await hold(source, silence=0.0)
    assert opened.held == START
    is_time.set()

    assert await everything(opened, source, frames) == START + BLOCK + STOP


async def test_an_end_that_was_being_read_when_the_gate_opened_is_the_end():
    is_time = asyncio.Event()

    async def late():
        yield START
        await is_time.wait()

    source = late()
    opened, frames = await hold(source, silence=0.0)
    is_time.set()

    assert await everything(opened, source, frames) == START


async def test_nothing_is_left_when_the_caller_goes_while_the_gate_is_closed():
    task = asyncio.create_task(hold(silent_after(START)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nothing_is_left_when_the_answer_is_never_asked_for():
    opened, _ = await hold(silent_after(START), silence=0.0)
    assert opened.pending is not None
    await gate.end(opened.pending)

    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12).map(sorted))
def test_however_a_stream_is_split_nothing_is_lost(cuts):
    async def relayed():
        bounds = [0, *cuts, len(WHOLE)]
        pieces = [WHOLE[a:b] for a, b in pairwise(bounds)]
        source = chunks(*[piece for piece in pieces if piece])
        opened, frames = await hold(source)
        assert not opened.is_failed
        return await everything(opened, source, frames)

    assert asyncio.run(relayed()) == WHOLE


@given(st.integers(0, len(START + PING + BLOCK)))
def test_wherever_a_stream_ends_before_content_it_has_failed(size):
    async def held():
        opened, _ = await hold(chunks(*([WHOLE[:size]] if size else [])))
        return opened

    assert asyncio.run(held()).is_failed is (size < len(START + PING + BLOCK))
