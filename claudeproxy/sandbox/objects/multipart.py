"""Finds the parts of a form with files in it, without copying them. Pure.

Source: RFC 7578, and RFC 2046, section 5.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Final

from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects.disk import Buffer

HEAD_LIMIT_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its name, and where its content lies in the body."""

    name: str
    filename: str | None
    content_type: str | None
    start: int
    end: int

    @property
    def size(self) -> int:
        """The length of its content."""
        return self.end - self.start


def parse(body: Buffer, content_type: str) -> list[Part]:
    """List the parts of a form.

    Errors: ApiError 400 if it is none, or is cut off.
    """
    header = _header("content-type", content_type)
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise ApiError(400, "The request body must be multipart/form-data")
    return list(_parts(body, b"--" + boundary.encode("latin-1", "replace")))


def _parts(body: Buffer, mark: bytes) -> Iterator[Part]:
    # What comes before the first mark is no part.
    position = 0 if body[: len(mark)] == mark else _find(body, b"\r\n" + mark, 0) + 2
    while True:
        start = position + len(mark)
        if body[start : start + 2] == b"--":
            return
        line_end = _find(body, b"\r\n", start)
        head_end = _find(body, b"\r\n\r\n", line_end)
        if head_end - line_end > HEAD_LIMIT_BYTES:
            raise ApiError(400, "The head of a part is too long")
        end = _next_mark(body, mark, head_end + 4)
        head = body[line_end + 2 : head_end]
        yield _part(head.decode("utf-8", "replace"), head_end + 4, end)
        position = end + 2


def _next_mark(body: Buffer, mark: bytes, start: int) -> int:
    """Find where the content ends; a longer line that begins alike is content."""
    position = start
    while True:
        position = _find(body, b"\r\n" + mark, position)
        rest = position + 2 + len(mark)
        after = body[rest : rest + 2]
        if after in (b"--", b"\r\n") or after[:1] in (b" ", b"\t"):
            return position
        position += 2


def _find(body: Buffer, what: bytes, start: int) -> int:
    position = body.find(what, start)
    if position < 0:
        raise ApiError(400, "The multipart body is incomplete")
    return position


def _part(head: str, start: int, end: int) -> Part:
    headers = Message()
    for line in head.split("\r\n"):
        field, _, value = line.partition(":")
        headers[field] = value.strip()
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str):
        raise ApiError(400, "A part of the form has no name")
    kind = headers.get_content_type() if "content-type" in headers else None
    return Part(name, headers.get_filename(), kind, start, end)


def _header(name: str, value: str) -> Message:
    message = Message()
    message[name] = value
    return message
