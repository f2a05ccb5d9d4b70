"""What must be learnt from a request's body, read once by a partial decode.

Only a few fields are decoded; the rest is skipped. A body that is no JSON, or not of
the expected shape, yields no facts and is forwarded all the same: saying what is wrong
with it is the upstream's part.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_LARGE_VALUE_BYTES = 64 * 1024
# What a body names that belongs to an account. A quote inside a JSON string is escaped,
# so a name between two bare ones, with a colon behind, is a key and never content. The
# repeats are bounded because bodies in files are searched in pieces.
REFERENCE = re.compile(
    rb'"(?:(?:file_id|skill_id|container)"\s{0,64}:\s{0,64}"'
    rb'|id"\s{0,64}:\s{0,64}"(?=container_))'
    rb'([A-Za-z0-9][A-Za-z0-9._:@-]{0,199})"'
)
_FILE_KEY = b'"file_id"'
_FILE = re.compile(rb'"file_id"\s{0,64}:\s{0,64}"([A-Za-z0-9][A-Za-z0-9._:@-]{0,199})"')
# So many files are looked up; no request of this size names more.
_MOST_FILES = 1_000
# Of a tool whose use has a container of its own.
_CODE_EXECUTION = b'"code_execution_'
_OLD_SESSION_ID = re.compile(r"_session_([0-9a-fA-F-]{36})$")


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What choosing an account and the log need to know of a request.

    `conversation` tells conversations apart; None where there is none to tell.
    `object_ids` and `thread` are what it names that may belong to one account, and the
    answer to one that `may_show` something shows a new thread or a container.
    """

    model: str | None = None
    is_stream: bool = False
    conversation: bytes | None = None
    object_ids: tuple[str, ...] = ()
    thread: str | None = None
    is_threaded: bool = False
    may_have_container: bool = False

    @property
    def may_show(self) -> bool:
        return self.is_threaded or self.may_have_container


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Head(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    metadata: _Metadata | None = None
    thread: msgspec.Raw = msgspec.Raw()
    container: msgspec.Raw = msgspec.Raw()


class _Thread(msgspec.Struct):
    previous_message_id: str | None = None


class _Skill(msgspec.Struct):
    skill_id: str = ""
    type: Any = None

    @property
    def is_shared(self) -> bool:
        """Is it one of the provider's, which every account has?"""
        return isinstance(self.type, str) and self.type == "anthropic"


class _Container(msgspec.Struct):
    id: str | None = None
    skills: list[_Skill] | None = None


class _Prefix(msgspec.Struct):
    system: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    messages: list[msgspec.Raw] = []


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw()


class _UserId(msgspec.Struct):
    session_id: str | None = None


_thread = msgspec.json.Decoder(_Thread | None)
_container = msgspec.json.Decoder(_Container | str | None)
_head = msgspec.json.Decoder(_Head)
_prefix = msgspec.json.Decoder(_Prefix)
_message = msgspec.json.Decoder(_Message)
_blocks = msgspec.json.Decoder(list[msgspec.Raw])
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_user_id = msgspec.json.Decoder(_UserId)
# Of these, msgspec only turns its own into a DecodeError.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read(body: bytes, *, session_id: bytes | None, by_prefix: bool) -> RequestFacts:
    """Read the facts of a Messages request.

    *session_id* is the header of Claude Code, which names the conversation outright.
    With *by_prefix*, a conversation that nothing names is told by what stays the same
    in it: system, tools and the first user message.
    """
    session_id = session_id or None
    try:
        head = _head.decode(body)
    except _UNREADABLE:
        return RequestFacts(conversation=_digest(session_id))
    named = session_id or _session_of(head.metadata)
    thread = _decoded(_thread, head.thread)
    return RequestFacts(
        model=head.model,
        is_stream=bool(head.stream),
        conversation=(
            _digest(named) if named or not by_prefix else _prefix_digest(body)
        ),
        object_ids=(*_of_container(head.container), *_files(body)),
        thread=thread.previous_message_id if thread else None,
        is_threaded=thread is not None,
        may_have_container=bool(head.container) or _CODE_EXECUTION in body,
    )


def _decoded(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T | None:
    if not raw:
        return None
    try:
        return decoder.decode(raw)
    except _UNREADABLE:
        return None


def _of_container(raw: msgspec.Raw) -> tuple[str, ...]:
    """Name a container and the skills in it; a container may be its bare id."""
    container = _decoded(_container, raw)
    if isinstance(container, str):
        return (container,)
    if container is None:
        return ()
    own = [s.skill_id for s in container.skills or () if not s.is_shared]
    return tuple(object_id for object_id in (container.id, *own) if object_id)


def _files(body: bytes) -> tuple[str, ...]:
    if _FILE_KEY not in body:
        return ()
    matches = islice(_FILE.finditer(body), _MOST_FILES)
    return tuple(dict.fromkeys(match[1].decode("ascii") for match in matches))


def _session_of(metadata: _Metadata | None) -> bytes | None:
    """Read the session from `metadata.user_id`: a JSON text, or the older plain one."""
    if metadata is None or not metadata.user_id:
        return None
    try:
        session_id = _user_id.decode(metadata.user_id).session_id
    except _UNREADABLE:
        match = _OLD_SESSION_ID.search(metadata.user_id)
        session_id = match[1] if match else None
    return session_id.encode() if session_id else None


def _digest(*parts: bytes | None) -> bytes | None:
    if all(part is None for part in parts):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part or b""))
        digest.update(part or b"")
    return digest.digest()


def _prefix_digest(body: bytes) -> bytes | None:
    try:
        prefix = _prefix.decode(body)
        for raw in prefix.messages:
            message = _message.decode(raw)
            if message.role == "user":
                parts = _parts(bytes(message.content))
                return _digest(bytes(prefix.system), bytes(prefix.tools), *parts)
    except _UNREADABLE:
        pass
    return None


def _parts(content: bytes) -> Iterator[bytes]:
    """Yield what identifies a message's content, field by field of each block.

    A caller marks the newest message for caching, so the first one loses its mark in
    the second turn: marks do not count. Of a large value, an image say, the beginning
    and the size do.
    """
    if not content.startswith(b"["):
        yield content
        return
    for block in map(bytes, _blocks.decode(content)):
        if not block.startswith(b"{"):
            yield block
            continue
        yield b"{"
        for name, value in _fields.decode(block).items():
            if name != "cache_control":
                yield name.encode()
                yield from _beginning_and_size(bytes(value))


def _beginning_and_size(value: bytes) -> tuple[bytes, bytes]:
    return value[:_LARGE_VALUE_BYTES], b"%d" % len(value)
