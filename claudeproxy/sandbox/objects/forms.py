"""A request whose body is a form with files."""

import re
from collections.abc import Iterable

from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects import multipart
from claudeproxy.sandbox.objects.disk import Extent, open_buffer
from claudeproxy.sandbox.objects.multipart import Part


class Form:
    """The parts of a form; its files are kept only when asked."""

    def __init__(self, call: Call) -> None:
        if call.upload is None:
            raise ApiError(400, "The request body must be multipart/form-data")
        self._path = call.upload
        self._disk = call.sandbox.objects.disk
        self._body = open_buffer(call.upload)
        self._parts = multipart.parse(self._body, call.header(b"content-type"))

    def files(self, name: str) -> list[Part]:
        """Find the parts of a name, which lists may have with brackets.

        Errors: ApiError 400 if there is none.
        """
        found = [part for part in self._parts if part.name in (name, f"{name}[]")]
        if not found:
            raise ApiError(400, f"{name}: Field required")
        return found

    def text(self, name: str) -> str | None:
        """Read a field, None if it is not there."""
        found = [part for part in self._parts if part.name == name]
        return self.content(found[-1]).decode("utf-8", "replace") if found else None

    def content(self, part: Part) -> bytes:
        """Read the content of a part."""
        return self._body[part.start : part.end]

    def keep(self, parts: Iterable[Part]) -> list[Extent]:
        """Keep the body, and tell where in it the contents of the parts are."""
        path = self._disk.keep(self._path)
        return [Extent(path, part.start, part.size) for part in parts]


def base_name(filename: str | None) -> str:
    """Take the last component of a path, whichever slashes it has."""
    return re.split(r"[/\\]", filename or "")[-1]
