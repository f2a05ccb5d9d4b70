"""Conversations that are held here, so that the caller sends only what is new."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects.store import Thread, ThreadTurn
from claudeproxy.sandbox.requests import Head, ThreadContinue

BETA: Final = "message-threads-2026-08-12"
IDLE_LIFETIME: Final = timedelta(minutes=5)
LIFETIME: Final = timedelta(hours=1)


def begin(call: Call, account: Account, head: Head) -> tuple[Head, Thread | None]:
    """Find or start the thread of a request, and fill in what it keeps.

    Errors: ApiError 404 or 400, with the code that SDKs tell them apart by.
    """
    if head.thread is None:
        return head, None
    if BETA not in [beta.strip() for beta in call.header(b"anthropic-beta").split(",")]:
        raise ApiError(400, "thread: Extra inputs are not permitted")
    if not isinstance(head.thread, ThreadContinue):
        now = call.sandbox.clock.now()
        return head, Thread(now, now, "", bytes(head.system), bytes(head.tools))
    for name in ("system", "tools"):
        if getattr(head, name):
            raise ApiError(400, f"{name}: comes from the thread when it is continued")
    thread = _find(call, account, head.thread.previous_message_id)
    filled = msgspec.structs.replace(
        head, system=msgspec.Raw(thread.system), tools=msgspec.Raw(thread.tools)
    )
    return filled, thread


def _find(call: Call, account: Account, previous: str) -> Thread:
    turn = call.sandbox.objects.turns.find(account.name, previous)
    now = call.sandbox.clock.now()
    if turn is None or not _is_alive(turn.thread, now):
        text = f"thread: no usable state was found for {previous}"
        raise ApiError(404, text, code="thread_not_found")
    if turn.thread.latest_id != previous:
        text = f"thread: {previous} has already been continued"
        raise ApiError(400, text, code="thread_already_continued")
    return turn.thread


def _is_alive(thread: Thread, now: datetime) -> bool:
    return now < min(thread.last_at + IDLE_LIFETIME, thread.began_at + LIFETIME)


def hold(call: Call, account: Account, thread: Thread, answer_id: str) -> None:
    """Let the thread go on from an answer, and forget the account's dead ones."""
    turns = call.sandbox.objects.turns
    now = call.sandbox.clock.now()
    for turn in turns.numbered(account.name).values():
        if not _is_alive(turn.thread, now):
            turns.remove(account.name, turn.id)
    thread.last_at = now
    thread.latest_id = answer_id
    turn = ThreadTurn(answer_id, now, thread)
    turns.add_in_place_of_oldest(account.name, turn)
