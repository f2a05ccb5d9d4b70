"""Reads what a Messages or token-counting request asks for, and refuses the rest."""

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Final, Literal, TypeVar

import msgspec

from claudeproxy.sandbox.errors import ApiError, readable

T = TypeVar("T")

ABSENT: Final = msgspec.Raw(b"")
ONE_HOUR: Final = re.compile(rb'"ttl"\s*:\s*"1h"')
BYTES_PER_TOKEN: Final = 4
CODE_TOOL: Final = "code_execution"
UPLOAD_BLOCK: Final = "container_upload"


class Block(msgspec.Struct):
    """A content block, as far as the answer depends on it."""

    type: str
    text: str = ""


class Turn(msgspec.Struct):
    """One entry of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    @property
    def blocks(self) -> list[Block]:
        """Its blocks, none if it is plain text."""
        return [] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The text of all its text blocks."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(block.text for block in self.content if block.type == "text")


class Tool(msgspec.Struct):
    """A tool the caller offers; those without a schema run on the API's side."""

    name: str = ""
    type: str | None = None
    input_schema: dict[str, object] | None = None


class ToolChoice(msgspec.Struct):
    """Which tool must or may be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class Thinking(msgspec.Struct):
    """Whether the answer shall begin with thinking."""

    type: str


class SkillAsked(msgspec.Struct):
    """A skill that shall be loaded in the container."""

    type: Literal["anthropic", "custom"]
    skill_id: str
    version: str = "latest"


class ContainerAsked(msgspec.Struct):
    """The container to use, a new one without an id."""

    id: str | None = None
    skills: list[SkillAsked] | None = None


class ThreadCreate(msgspec.Struct, tag_field="type", tag="create"):
    """The wish that the conversation be held here."""


class ThreadContinue(msgspec.Struct, tag_field="type", tag="continue"):
    """The answer that the conversation goes on from."""

    previous_message_id: str


class Head(msgspec.Struct):
    """The top level of a request body; large parts stay undecoded bytes."""

    model: str | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    messages: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    container: str | ContainerAsked | None = None
    thread: ThreadCreate | ThreadContinue | None = None


class Conversation:
    """A valid request body: what was asked, and how large it is in tokens."""

    def __init__(self, head: Head) -> None:
        self.model = head.model or ""
        self.max_tokens = head.max_tokens or 0
        self.stream = bool(head.stream)
        self.tool_choice = head.tool_choice
        self.thinks = head.thinking is not None and head.thinking.type in (
            "enabled",
            "adaptive",
        )
        self.turns = _decode(head.messages, list[Turn], "messages")
        self.tools = _decode(head.tools, list[Tool], "tools") if head.tools else []
        self.container = head.container
        self._parts = (bytes(head.tools), bytes(head.system), bytes(head.messages))

    @cached_property
    def digest(self) -> str:
        """A fingerprint of what was asked, the same for streamed and plain answers."""
        state = hashlib.sha256(f"{self.model}:{self.max_tokens}".encode())
        for part in self._parts:
            state.update(b"\0")
            state.update(part)
        return state.hexdigest()

    @property
    def input_tokens(self) -> int:
        """A guess at the size of the prompt."""
        return 1 + sum(map(len, self._parts)) // BYTES_PER_TOKEN

    @cached_property
    def files(self) -> list[str]:
        """The ids of the files that its messages name."""
        if b'"file_id"' not in self._parts[2]:
            return []
        turns = msgspec.json.decode(self._parts[2])
        return [name for turn in turns for name in _named_files(turn["content"])]

    @property
    def runs_code(self) -> bool:
        """Whether it needs a place where code runs, or where files are put."""
        tools = any((tool.type or "").startswith(CODE_TOOL) for tool in self.tools)
        blocks = (block for turn in self.turns for block in turn.blocks)
        return tools or any(block.type == UPLOAD_BLOCK for block in blocks)

    @property
    def is_cached(self) -> bool:
        """Whether the caller marked anything for the prompt cache."""
        return any(b'"cache_control"' in part for part in self._parts)

    @property
    def wants_long_cache(self) -> bool:
        """Whether it asked for the cache to live an hour."""
        return any(ONE_HOUR.search(part) for part in self._parts)

    @property
    def last_user_text(self) -> str:
        """The text of the last user turn, empty if that turn has none."""
        users = [turn for turn in self.turns if turn.role == "user"]
        return users[-1].text if users else ""


def _named_files(content: object) -> Iterator[str]:
    # What a tool is called with may look like a block, so only known places count.
    for block in content if isinstance(content, list) else []:
        if not isinstance(block, dict):
            continue
        source = block.get("source")
        if block.get("type") == UPLOAD_BLOCK:
            yield str(block.get("file_id"))
        elif isinstance(source, dict) and source.get("type") == "file":
            yield str(source.get("file_id"))
        elif isinstance(source, dict):
            yield from _named_files(source.get("content"))
        yield from _named_files(block.get("content"))


def read_head(body: bytes) -> Head:
    """Decode the top level of a request body.

    Errors: ApiError 400 that names the field, or says that it is no JSON.
    """
    return _decode(msgspec.Raw(body), Head, "")


def read_conversation(head: Head, *, counting: bool = False) -> Conversation:
    """Check a request body and decode the conversation; counting needs no limit.

    Errors: ApiError 400 that names the field.
    """
    if head.model is None:
        raise ApiError(400, "model: Field required")
    if head.max_tokens is None and not counting:
        raise ApiError(400, "max_tokens: Field required")
    if not head.messages:
        raise ApiError(400, "messages: Field required")
    if head.max_tokens is not None and head.max_tokens < 0:
        raise ApiError(400, "max_tokens: must not be negative")
    if head.max_tokens == 0 and head.stream:
        raise ApiError(400, "max_tokens: must be at least 1 for a streamed answer")
    conversation = Conversation(head)
    if not conversation.turns:
        raise ApiError(400, "messages: at least one message is required")
    _check_tool_choice(conversation)
    return conversation


def _check_tool_choice(conversation: Conversation) -> None:
    choice = conversation.tool_choice
    if choice is None or choice.type in ("auto", "none"):
        return
    names = [tool.name for tool in conversation.tools]
    if not names:
        raise ApiError(400, "tool_choice: needs tools")
    if choice.type == "tool" and choice.name not in names:
        raise ApiError(400, f"tool_choice.name: no tool {choice.name!r} in tools")


def _decode(raw: msgspec.Raw, kind: type[T], root: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as exc:
        raise ApiError(400, readable(exc, root)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApiError(400, f"The request body is not valid JSON: {exc}") from exc
