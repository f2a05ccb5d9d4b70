"""The files endpoint."""

import mimetypes
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qs

from claudeproxy.sandbox import calls, paging
from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects.disk import Pieces
from claudeproxy.sandbox.objects.forms import Form, base_name
from claudeproxy.sandbox.objects.multipart import Part
from claudeproxy.sandbox.objects.store import File, new_id

SHORTEST_SECONDS: Final = 3_600
LONGEST_SECONDS: Final = 7_776_000
IDS_LIMIT: Final = 100
UNKNOWN_TYPE: Final = "application/octet-stream"


def upload(call: Call, account: Account) -> Reply:
    """Keep a file."""
    form = Form(call)
    part = form.files("file")[0]
    lifetime = _read_lifetime(form.text("expires_in_seconds"))
    objects = call.sandbox.objects
    now = call.sandbox.clock.now()
    filename, mime_type = _describe(part)
    objects.files.require_room(account.name)
    (content,) = form.keep([part])
    file = File(
        id=new_id("file"),
        created_at=now,
        filename=filename,
        mime_type=mime_type,
        content=content,
        is_downloadable=objects.uploads_are_downloadable,
        expires_at=None if lifetime is None else now + lifetime,
    )
    objects.files.add(account.name, file)
    return calls.answer_json(call, _shown(file))


def _describe(part: Part) -> tuple[str, str]:
    filename = base_name(part.filename)
    guess = part.content_type or mimetypes.guess_type(filename)[0] or UNKNOWN_TYPE
    return filename or f"unnamed{mimetypes.guess_extension(guess) or ''}", guess


def _read_lifetime(text: str | None) -> timedelta | None:
    if text is None:
        return None
    if not text.isdecimal() or not SHORTEST_SECONDS <= int(text) <= LONGEST_SECONDS:
        limits = f"{SHORTEST_SECONDS} and {LONGEST_SECONDS}"
        raise ApiError(400, f"expires_in_seconds: must be between {limits}")
    return timedelta(seconds=int(text))


def listing(call: Call, account: Account) -> Reply:
    """List files, the newest first."""
    files = call.sandbox.objects.files
    query = parse_qs(call.query, keep_blank_values=True)
    asked = {*query.pop("ids[]", ()), *query.pop("ids", ())}
    if not asked:
        shown = {n: _shown(file) for n, file in files.numbered(account.name).items()}
        page = paging.by_token(shown, query, f"files:{account.name}")
        return calls.answer_json(call, page)
    if len(asked) > IDS_LIMIT or "page" in query or "limit" in query:
        text = f"ids: at most {IDS_LIMIT}, and neither page nor limit with them"
        raise ApiError(400, text)
    found = [file for file in files.newest_first(account.name) if file.id in asked]
    shown_files = [_shown(file) for file in found]
    return calls.answer_json(call, {"data": shown_files, "next_page": None})


def retrieve(call: Call, account: Account, name: str) -> Reply:
    """Describe a file."""
    file = call.sandbox.objects.files.get(account.name, name)
    return calls.answer_json(call, _shown(file))


def content(call: Call, account: Account, name: str) -> Reply:
    """Send what is in a file."""
    file = require(call, account, name)
    if not file.is_downloadable:
        text = f"File {name} is not downloadable"
        raise ApiError(400, text, code="file_not_downloadable")
    headers = (
        (b"content-type", file.mime_type.encode("latin-1", "replace")),
        (b"content-length", str(file.content.size).encode()),
    )
    status = call.step.status or 200
    return Reply(status, calls.headers(call, *headers), Pieces(file.content))


def require(call: Call, account: Account, name: str) -> File:
    """Find a file whose content is still there.

    Errors: ApiError 404.
    """
    file = call.sandbox.objects.files.get(account.name, name)
    if file.expires_at is not None and file.expires_at <= call.sandbox.clock.now():
        raise ApiError(404, f"File has expired: {name}", code="file_expired")
    return file


def delete(call: Call, account: Account, name: str) -> Reply:
    """Delete a file."""
    files = call.sandbox.objects.files
    file = files.get(account.name, name)
    files.remove(account.name, name)
    file.content.path.unlink(missing_ok=True)
    return calls.answer_json(call, {"id": name, "type": "file_deleted"})


def _shown(file: File) -> dict[str, object]:
    return {
        "id": file.id,
        "type": "file",
        "filename": file.filename,
        "mime_type": file.mime_type,
        "size_bytes": file.content.size,
        "created_at": file.created_at,
        "downloadable": file.is_downloadable,
        "expires_at": file.expires_at,
    }
