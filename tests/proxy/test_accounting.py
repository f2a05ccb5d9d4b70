"""The ledger is told what a request has used, and whether that may not be all."""

import pytest

from proxy import accounting
from proxy.record import Attempt, End, RequestRecord
from tests.factories import pooled
from usage.tally import Tally

START = (
    b"event: message_start\n"
    b'data: {"message": {"type": "message", "usage": {"input_tokens": 20}}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'


def record(end: End, frames: bytes = b"") -> RequestRecord:
    """A request whose account has said so much until it ended so."""
    it = RequestRecord(
        method="POST", path="/v1/messages", account=pooled(), tally=Tally()
    )
    assert it.tally is not None
    it.tally.note_frames(frames)
    it.end = end
    return it


@pytest.mark.parametrize(
    ("end", "frames", "is_incomplete"),
    [
        (End.COMPLETE, START + STOP, False),
        (End.CLIENT_GONE, START + STOP, False),
        (End.UPSTREAM_ERROR, START, True),
        (End.CLIENT_GONE, START, True),
        # Let go of before it had said anything, which is not to say that it used none.
        (End.CLIENT_GONE, b"", True),
        (End.DRAINED, b"", True),
        (End.REVOKED, b"", True),
        # An error, which says itself that nothing was used.
        (End.COMPLETE, b"", False),
        (End.UPSTREAM_ERROR, b"", False),
    ],
)
def test_usage_that_may_not_be_all_is_marked(end, frames, is_incomplete):
    told = accounting.finished(record(end, frames))

    assert told.is_incomplete == is_incomplete
    assert (told.usage is not None) == bool(frames)


def test_an_attempt_that_broke_off_leaves_the_sum_incomplete():
    it = record(End.COMPLETE, START + STOP)
    it.attempts.append(Attempt("a", "network", "timeout", may_have_used=True))

    assert accounting.finished(it).is_incomplete


def test_an_attempt_that_was_refused_used_nothing():
    it = record(End.COMPLETE, START + STOP)
    it.attempts.append(Attempt("a", "account", "status 429"))

    assert not accounting.finished(it).is_incomplete


def test_nothing_was_used_before_an_account_was_asked():
    it = record(End.CLIENT_GONE)
    it.account = None

    assert not accounting.finished(it).is_incomplete


def test_what_has_no_usage_is_not_marked():
    it = record(End.CLIENT_GONE)
    it.tally = None

    assert not accounting.finished(it).is_incomplete
