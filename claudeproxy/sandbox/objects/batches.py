"""The message batches endpoint."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

import msgspec

from claudeproxy.sandbox import answers, calls, paging, requests
from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.answers import Wording
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError, readable
from claudeproxy.sandbox.objects import conversing
from claudeproxy.sandbox.objects.disk import Extent, Pieces, open_buffer
from claudeproxy.sandbox.objects.store import Batch, Counts, new_id

PATH: Final = "/v1/messages/batches"
LIFETIME: Final = timedelta(hours=24)
LONGEST: Final = 100_000
JSON_LINES: Final = (b"content-type", b"application/x-jsonl")


class Request(msgspec.Struct, frozen=True):
    """One request of a batch."""

    custom_id: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: msgspec.Raw


class Body(msgspec.Struct, frozen=True):
    """The body of a call that creates a batch."""

    requests: list[Request]


def create(call: Call, account: Account) -> Reply:
    """Take a batch in; its requests are looked at only when it ends."""
    batches = call.sandbox.objects.batches
    batches.require_room(account.name)
    if call.upload is None:
        raise ApiError(400, "requests: Field required")
    size = call.upload.stat().st_size
    asked = _decode(Extent(call.upload, 0, size))
    path = call.sandbox.objects.disk.keep(call.upload)
    now = call.sandbox.clock.now()
    batch = Batch(
        id=new_id("msgbatch"),
        created_at=now,
        due_at=now + timedelta(seconds=call.sandbox.objects.batch_seconds),
        expires_at=now + LIFETIME,
        content=Extent(path, 0, size),
        counts=Counts(processing=len(asked)),
    )
    batches.add(account.name, batch)
    return calls.answer_json(call, _shown(call, batch))


def _decode(body: Extent) -> list[Request]:
    try:
        asked = msgspec.json.decode(open_buffer(body.path), type=Body).requests
    except msgspec.ValidationError as exc:
        raise ApiError(400, readable(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApiError(400, f"The request body is not valid JSON: {exc}") from exc
    if not 1 <= len(asked) <= LONGEST:
        raise ApiError(400, f"requests: must be 1 to {LONGEST}, not {len(asked)}")
    seen: set[str] = set()
    for number, request in enumerate(asked):
        if request.custom_id in seen:
            text = f"requests.{number}.custom_id: {request.custom_id} is not unique"
            raise ApiError(400, text)
        seen.add(request.custom_id)
    return asked


def listing(call: Call, account: Account) -> Reply:
    """List batches, the newest first."""
    found = call.sandbox.objects.batches.newest_first(account.name)
    query = parse_qs(call.query, keep_blank_values=True)
    page = paging.by_cursor({batch.id: batch for batch in found}, query, "batch")
    for batch in page["data"]:
        _settle(call, account, batch)
    page["data"] = [_shown(call, batch) for batch in page["data"]]
    return calls.answer_json(call, page)


def retrieve(call: Call, account: Account, name: str) -> Reply:
    """Describe a batch."""
    return calls.answer_json(call, _shown(call, _look_at(call, account, name)))


def cancel(call: Call, account: Account, name: str) -> Reply:
    """Begin to cancel a batch, unless it was already seen to have ended."""
    batch = call.sandbox.objects.batches.get(account.name, name)
    if batch.ended_at is not None:
        raise ApiError(400, f"Message batch {name} has ended and cannot be canceled")
    if batch.cancel_initiated_at is None:
        batch.cancel_initiated_at = call.sandbox.clock.now()
    return calls.answer_json(call, _shown(call, batch))


def delete(call: Call, account: Account, name: str) -> Reply:
    """Delete a batch that has ended."""
    batch = _look_at(call, account, name)
    if batch.ended_at is None:
        raise ApiError(400, f"Message batch {name} is in progress; cancel it first")
    call.sandbox.objects.batches.remove(account.name, name)
    batch.content.path.unlink(missing_ok=True)
    return calls.answer_json(call, {"id": name, "type": "message_batch_deleted"})


def results(call: Call, account: Account, name: str) -> Reply:
    """Send the results, in the order of the requests."""
    batch = _look_at(call, account, name)
    if batch.ended_at is None:
        raise ApiError(400, f"Message batch {name} has no results yet")
    length = (b"content-length", str(batch.content.size).encode())
    headers = calls.headers(call, JSON_LINES, length)
    return Reply(call.step.status or 200, headers, Pieces(batch.content))


def _look_at(call: Call, account: Account, name: str) -> Batch:
    batch = call.sandbox.objects.batches.get(account.name, name)
    _settle(call, account, batch)
    return batch


def _settle(call: Call, account: Account, batch: Batch) -> None:
    """Let a batch end if it is time for it."""
    ended_at = batch.cancel_initiated_at or min(batch.due_at, batch.expires_at)
    if batch.ended_at is not None or ended_at > call.sandbox.clock.now():
        return
    batch.counts = Counts()
    path = call.sandbox.objects.disk.new_file()
    with path.open("wb") as file:
        for line in _work_off(call, account, batch):
            file.write(line)
    batch.content.path.unlink(missing_ok=True)
    batch.content = Extent(path, 0, path.stat().st_size)
    batch.ended_at = ended_at


def _work_off(call: Call, account: Account, batch: Batch) -> Iterator[bytes]:
    for request in _decode(batch.content):
        result = _result(call, account, batch, request)
        kind = result["type"]
        setattr(batch.counts, kind, getattr(batch.counts, kind) + 1)
        line = {"custom_id": request.custom_id, "result": result}
        yield msgspec.json.encode(line) + b"\n"


def _result(
    call: Call, account: Account, batch: Batch, request: Request
) -> dict[str, Any]:
    if batch.cancel_initiated_at is not None:
        return {"type": "canceled"}
    if batch.due_at > batch.expires_at:
        return {"type": "expired"}
    try:
        message = _answer(call, account, request)
    except ApiError as exc:
        return {"type": "errored", "error": msgspec.Raw(exc.body(None))}
    return {"type": "succeeded", "message": msgspec.Raw(message)}


def _answer(call: Call, account: Account, request: Request) -> bytes:
    head = requests.read_head(bytes(request.params))
    for name in ("stream", "thread"):
        if getattr(head, name):
            raise ApiError(400, f"{name}: not supported in a batch")
    question = conversing.check(call, account, head)
    answer = conversing.answer(call, account, question, Wording())
    return answers.message(answer, service_tier="batch")


def _shown(call: Call, batch: Batch) -> dict[str, object]:
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": _status(batch),
        "request_counts": batch.counts,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "ended_at": batch.ended_at,
        "cancel_initiated_at": batch.cancel_initiated_at,
        "archived_at": None,
        "results_url": _results_url(call, batch),
    }


def _status(batch: Batch) -> str:
    if batch.ended_at is not None:
        return "ended"
    return "canceling" if batch.cancel_initiated_at is not None else "in_progress"


def _results_url(call: Call, batch: Batch) -> str | None:
    if batch.ended_at is None:
        return None
    return f"http://{call.header(b'host')}{PATH}/{batch.id}/results"
