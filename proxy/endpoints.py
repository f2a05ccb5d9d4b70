"""The paths that may use the pool: an allow-list, matched on the path as it was sent.

Nothing is decoded or normalised before the match, so `..`, `//` and `%2f` cannot turn
an unlisted path into a listed one on the way to the upstream.
"""

import re
from dataclasses import dataclass, field

from accounts.status import ObjectKind

_MEBIBYTE = 1024**2
# One segment that begins with a letter or digit, so never `.` or `..`.
_ID = r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}"
_OBJECT_ID = re.compile(_ID)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the API: its pattern, the methods it takes, its largest body.

    *template* is the path with a name in braces for each id; if the path is about an
    object of one account, the first names that object.
    """

    name: str
    template: str
    methods: tuple[str, ...]
    body_limit_bytes: int = 32 * _MEBIBYTE
    # Does the body name a model and belong to a conversation?
    is_conversation: bool = False
    # Is who asks a client session? Claude Code looks for models under another name than
    # it talks under, and would take two places.
    needs_session: bool = True
    # Does its answer say what was used?
    reports_usage: bool = False
    # Is it limited apart from messages?
    has_own_limits: bool = False
    # What it is about, if that belongs to the account it was made with.
    kind: ObjectKind | None = None
    # Are all objects of the kind listed here, and new ones made?
    is_collection: bool = False
    # Do its pages begin at an object's id, and not at a token?
    pages_by_id: bool = False
    # Does POST make something, so that a second one would make it twice?
    makes: bool = False
    # Is the answer to be handed through, however large?
    is_download: bool = False
    path: re.Pattern[bytes] = field(init=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"\{\w+\}", lambda _: f"({_ID})", self.template)
        object.__setattr__(self, "path", re.compile(pattern.encode()))

    def object_id(self, raw_path: bytes) -> str:
        """Return the id of the object that a path of this endpoint is about."""
        match = self.path.fullmatch(raw_path)
        if match is None or self.kind is None or self.is_collection:
            raise ValueError(f"{self.name} is about no object")
        return match[1].decode("ascii")


def _owned(
    name: str,
    template: str,
    methods: tuple[str, ...],
    kind: ObjectKind,
    *,
    body_limit_bytes: int = 32 * _MEBIBYTE,
    is_collection: bool = False,
    pages_by_id: bool = False,
    makes: bool = False,
    is_download: bool = False,
) -> Endpoint:
    return Endpoint(
        *(name, template, methods, body_limit_bytes),
        has_own_limits=True,
        kind=kind,
        is_collection=is_collection,
        pages_by_id=pages_by_id,
        makes=makes or is_collection,
        is_download=is_download,
    )


_BATCH, _FILE, _SKILL = ObjectKind.BATCH, ObjectKind.FILE, ObjectKind.SKILL
_READ, _BOTH, _OBJECT = ("GET",), ("GET", "POST"), ("GET", "DELETE")
_BATCHES, _VERSION = "/v1/messages/batches", "/v1/skills/{id}/versions/{version}"

ENDPOINTS = (
    Endpoint(
        "messages",
        "/v1/messages",
        ("POST",),
        is_conversation=True,
        reports_usage=True,
    ),
    Endpoint(
        "count_tokens",
        "/v1/messages/count_tokens",
        ("POST",),
        is_conversation=True,
        has_own_limits=True,
    ),
    Endpoint(
        *("models", "/v1/models", _READ, _MEBIBYTE),
        has_own_limits=True,
        needs_session=False,
    ),
    Endpoint(
        *("model", "/v1/models/{id}", _READ, _MEBIBYTE),
        has_own_limits=True,
        needs_session=False,
    ),
    _owned(
        *("batches", _BATCHES, _BOTH, _BATCH),
        body_limit_bytes=256 * _MEBIBYTE,
        is_collection=True,
        pages_by_id=True,
    ),
    _owned("batch", f"{_BATCHES}/{{id}}", _OBJECT, _BATCH),
    _owned("batch_cancel", f"{_BATCHES}/{{id}}/cancel", ("POST",), _BATCH),
    _owned(
        *("batch_results", f"{_BATCHES}/{{id}}/results", _READ, _BATCH),
        is_download=True,
    ),
    _owned(
        *("files", "/v1/files", _BOTH, _FILE),
        body_limit_bytes=500 * _MEBIBYTE,
        is_collection=True,
    ),
    _owned("file", "/v1/files/{id}", _OBJECT, _FILE),
    _owned("file_content", "/v1/files/{id}/content", _READ, _FILE, is_download=True),
    _owned("skills", "/v1/skills", _BOTH, _SKILL, is_collection=True),
    _owned("skill", "/v1/skills/{id}", _OBJECT, _SKILL),
    _owned("skill_versions", "/v1/skills/{id}/versions", _BOTH, _SKILL, makes=True),
    _owned("skill_version", _VERSION, _OBJECT, _SKILL),
    _owned(
        *("skill_content", f"{_VERSION}/content", _READ, _SKILL),
        is_download=True,
    ),
)
_COLLECTIONS = {e.kind: e for e in ENDPOINTS if e.is_collection}
_OBJECTS = {
    collection.kind: endpoint
    for collection in _COLLECTIONS.values()
    for endpoint in ENDPOINTS
    if endpoint.template == collection.template + "/{id}"
}


def find(raw_path: bytes) -> Endpoint | None:
    """Return the endpoint of a path as it stood in the request line, or None."""
    for endpoint in ENDPOINTS:
        if endpoint.path.fullmatch(raw_path):
            return endpoint
    return None


def of_object(kind: ObjectKind, object_id: str) -> tuple[Endpoint, bytes]:
    """Return the endpoint of one object of a kind that is listed, and its path.

    Errors: ValueError for an id that cannot be a segment of a path.
    """
    if not is_object_id(object_id):
        raise ValueError("no id of an object")
    endpoint = _OBJECTS[kind]
    return endpoint, endpoint.template.replace("{id}", object_id).encode("ascii")


def is_object_id(text: str) -> bool:
    """Can this be an object's id, and so part of a path?"""
    return _OBJECT_ID.fullmatch(text) is not None


def served() -> str:
    """Name all paths with their methods, for who asked for another."""
    return ", ".join(f"{'|'.join(e.methods)} {e.template}" for e in ENDPOINTS)
