"""Builds the answer to a conversation, as one JSON message or as server-sent events.

Everything here follows from the account, the request and the script alone, so the
same request always gets the same words, streamed or not.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

import msgspec

from claudeproxy.sandbox.requests import Conversation, Tool

# Words of at most six characters stand for tokens; joined they are the text again.
TOKEN: Final = re.compile(r"\s*\S{1,6}|\s+")
TOKENS_PER_DELTA: Final = 4
FRAMES_PER_PING: Final = 20
JSON_CHARACTERS_PER_DELTA: Final = 12
UNCACHED_TOKENS: Final = 3
THOUGHT: Final = (
    "The sandbox does not think. This block stands where thinking would be. 思考 🤔"
)
FILLER: Final = "Sandbox frame {number} of {total}, 第{number}段 🧪. "
# What is only known when a stream ends, and so is not in its `message_start`.
AT_THE_END: Final = ("iterations", "server_tool_use")
SAMPLES: Final[dict[object, object]] = {
    "string": "sandbox",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
}


# A usage object as it goes out.
Stated = dict[str, object]


class CacheCreation(msgspec.Struct, frozen=True):
    """Cache writes by how long they live."""

    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class OutputDetails(msgspec.Struct, frozen=True):
    """What part of the output was thinking."""

    thinking_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """The usage object of a message."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    cache_creation: CacheCreation
    output_tokens: int
    output_tokens_details: OutputDetails
    server_tool_use: None = None
    service_tier: str = "standard"

    @property
    def limited_input_tokens(self) -> int:
        """The input that counts against a rate limit; cache reads do not."""
        return self.input_tokens + self.cache_creation_input_tokens


class DeltaUsage(msgspec.Struct, frozen=True):
    """The usage object at a stream's end: cumulative, and without the cache split."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputDetails
    server_tool_use: None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A content block: whole, as it starts in a stream, and the deltas between."""

    whole: dict[str, object]
    start: dict[str, object]
    deltas: Sequence[dict[str, object]]
    tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer, not yet in any wire format."""

    id: str
    model: str
    blocks: Sequence[Block]
    stop_reason: str
    usage: Usage
    container: Mapping[str, object] | None = None
    # What the script says of the usage; it stands above what was guessed.
    own_usage: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wording:
    """What the script says about the words: own text, and how many deltas."""

    text: str | None = None
    deltas: int | None = None

    @property
    def is_scripted(self) -> bool:
        """Whether anything is said; then max_tokens does not shorten the text."""
        return self.text is not None or self.deltas is not None


def compose(
    conversation: Conversation, *, account: str, model: str, wording: Wording
) -> Answer:
    """Make up the answer to a conversation."""
    identity = f"{account}:{conversation.digest}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    blocks = list(_blocks(conversation, account, model, wording, digest))
    stop_reason = "end_turn"
    if not wording.is_scripted:
        blocks, stop_reason = _shorten(blocks, conversation.max_tokens)
    if stop_reason == "end_turn" and blocks and blocks[-1].whole["type"] == "tool_use":
        stop_reason = "tool_use"
    return Answer(
        id=f"msg_sandbox{digest[:20]}",
        model=model,
        blocks=blocks,
        stop_reason=stop_reason,
        usage=_usage(conversation, blocks),
    )


def message(answer: Answer, *, service_tier: str = "standard") -> bytes:
    """Write an answer as the JSON body of a Messages response."""
    content = [block.whole for block in answer.blocks]
    usage = msgspec.structs.replace(answer.usage, service_tier=service_tier)
    stated = _stated(usage, answer.own_usage)
    whole = _envelope(answer, content, answer.stop_reason, stated)
    return msgspec.json.encode({**whole, "container": answer.container})


def frames(answer: Answer) -> list[bytes]:
    """Write an answer as server-sent events, one item per frame."""
    head = _envelope(answer, [], None, _begun(answer))
    result = [frame("message_start", {"type": "message_start", "message": head})]
    for index, block in enumerate(answer.blocks):
        result.extend(_block_frames(index, block))
    ended: dict[str, object] = {
        "type": "message_delta",
        "delta": {
            "stop_reason": answer.stop_reason,
            "stop_sequence": None,
            "stop_details": None,
            "container": answer.container,
        },
        "usage": _ended(answer),
    }
    result.append(frame("message_delta", ended))
    result.append(frame("message_stop", {"type": "message_stop"}))
    return result


def frame(event: str, data: dict[str, object] | bytes) -> bytes:
    """Write one server-sent event."""
    text = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return b"event: %b\ndata: %b\n\n" % (event.encode(), text)


PING: Final = frame("ping", {"type": "ping"})


def _envelope(
    answer: Answer, content: list[dict[str, object]], stop: str | None, usage: Stated
) -> dict[str, object]:
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": usage,
    }


def _stated(usage: Usage | DeltaUsage, own: Mapping[str, object]) -> Stated:
    return {**msgspec.structs.asdict(usage), **own}


def _begun(answer: Answer) -> Stated:
    """The usage at a stream's start: all of the prompt, hardly any output."""
    output = answer.own_usage.get("output_tokens", answer.usage.output_tokens)
    begun = {
        "output_tokens": min(1, output) if isinstance(output, int) else output,
        "output_tokens_details": OutputDetails(0),
    }
    own = {k: v for k, v in answer.own_usage.items() if k not in AT_THE_END}
    return {**_stated(answer.usage, own), **begun}


def _ended(answer: Answer) -> Stated:
    usage = answer.usage
    ended = DeltaUsage(
        input_tokens=usage.input_tokens,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        output_tokens=usage.output_tokens,
        output_tokens_details=usage.output_tokens_details,
    )
    told = {*DeltaUsage.__struct_fields__, *AT_THE_END}
    return _stated(ended, {k: v for k, v in answer.own_usage.items() if k in told})


def _block_frames(index: int, block: Block) -> Iterator[bytes]:
    yield frame(
        "content_block_start",
        {"type": "content_block_start", "index": index, "content_block": block.start},
    )
    if index == 0:
        yield PING
    for number, delta in enumerate(block.deltas, start=1):
        yield frame(
            "content_block_delta",
            {"type": "content_block_delta", "index": index, "delta": delta},
        )
        if number % FRAMES_PER_PING == 0:
            yield PING
    yield frame("content_block_stop", {"type": "content_block_stop", "index": index})


def _blocks(
    conversation: Conversation,
    account: str,
    model: str,
    wording: Wording,
    digest: str,
) -> Iterator[Block]:
    if conversation.thinks:
        signature = base64.b64encode(f"sandbox:{account}:{digest}".encode()).decode()
        yield _thinking(THOUGHT, signature)
    text = wording.text
    if text is None and wording.deltas is not None:
        text = "".join(
            FILLER.format(number=number, total=wording.deltas)
            for number in range(1, wording.deltas + 1)
        )
    if text is None:
        text = _introduction(conversation, account, model, digest)
    yield _text(text, wording.deltas)
    tool = None if wording.text is not None else _tool_to_use(conversation)
    if tool is not None:
        yield _tool_use(tool, f"toolu_sandbox{digest[20:40]}")


def _introduction(
    conversation: Conversation, account: str, model: str, digest: str
) -> str:
    return (
        f"This is the Claude sandbox, no model was asked. Account {account} answered"
        f" as {model}, conversation {digest[:8]} with {len(conversation.turns)}"
        " message(s). 你好世界 👋🏽 naïve café 👩‍💻 ✓."
    )


def _text(text: str, deltas: int | None) -> Block:
    tokens = TOKEN.findall(text)
    if deltas is None:
        pieces = [
            "".join(tokens[start : start + TOKENS_PER_DELTA])
            for start in range(0, len(tokens), TOKENS_PER_DELTA)
        ]
    else:
        pieces = _split_evenly(text, deltas)
    return Block(
        whole={"type": "text", "text": text},
        start={"type": "text", "text": ""},
        deltas=[{"type": "text_delta", "text": piece} for piece in pieces],
        tokens=len(tokens),
    )


def _split_evenly(text: str, pieces: int) -> list[str]:
    """Cut *text* into that many pieces; some stay empty if it is too short."""
    bounds = [len(text) * number // pieces for number in range(pieces)] + [len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


def _thinking(thought: str, signature: str) -> Block:
    tokens = TOKEN.findall(thought)
    pieces = _split_evenly(thought, 1 + len(tokens) // TOKENS_PER_DELTA)
    deltas: list[dict[str, object]] = [
        {"type": "thinking_delta", "thinking": piece} for piece in pieces
    ]
    deltas.append({"type": "signature_delta", "signature": signature})
    return Block(
        whole={"type": "thinking", "thinking": thought, "signature": signature},
        start={"type": "thinking", "thinking": "", "signature": ""},
        deltas=deltas,
        tokens=len(tokens),
    )


def _tool_use(tool: Tool, tool_use_id: str) -> Block:
    arguments = sample(tool.input_schema or {})
    text = msgspec.json.encode(arguments).decode()
    pieces = ["", *re.findall(f".{{1,{JSON_CHARACTERS_PER_DELTA}}}", text, re.DOTALL)]
    base = {"type": "tool_use", "id": tool_use_id, "name": tool.name}
    return Block(
        whole={**base, "input": arguments},
        start={**base, "input": {}},
        deltas=[{"type": "input_json_delta", "partial_json": part} for part in pieces],
        tokens=len(TOKEN.findall(text)),
    )


def _tool_to_use(conversation: Conversation) -> Tool | None:
    choice = conversation.tool_choice
    kind: Literal["auto", "any", "tool", "none"] = choice.type if choice else "auto"
    # Tools without a schema run on the API's side; their blocks look different.
    own = [tool for tool in conversation.tools if tool.input_schema is not None]
    if kind == "none" or not own:
        return None
    if kind == "any":
        return own[0]
    if kind == "tool":
        return next((tool for tool in own if choice and tool.name == choice.name), None)
    asked = conversation.last_user_text
    return next((tool for tool in own if tool.name and tool.name in asked), None)


def sample(schema: Mapping[str, object]) -> dict[str, object]:
    """Make up arguments that fit the top level of a tool's JSON schema."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {str(name): _sample_value(part) for name, part in properties.items()}


def _sample_value(schema: object) -> object:
    if not isinstance(schema, dict):
        return SAMPLES["string"]
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    kind = schema.get("type")
    if kind == "object":
        return sample(schema)
    kind = kind if isinstance(kind, str) else "string"
    return SAMPLES.get(kind, SAMPLES["string"])


def _shorten(blocks: list[Block], max_tokens: int) -> tuple[list[Block], str]:
    """Keep what fits into *max_tokens*; only text can be cut in the middle."""
    kept: list[Block] = []
    left = max_tokens
    for block in blocks:
        if block.tokens > left:
            if block.whole["type"] == "text" and left > 0:
                tokens = TOKEN.findall(str(block.whole["text"]))
                kept.append(_text("".join(tokens[:left]), None))
            return kept, "max_tokens"
        kept.append(block)
        left -= block.tokens
    return kept, "end_turn"


def _usage(conversation: Conversation, blocks: Sequence[Block]) -> Usage:
    total = conversation.input_tokens
    written = read = 0
    if conversation.is_cached:
        uncached = min(UNCACHED_TOKENS, total)
        if any(turn.role == "assistant" for turn in conversation.turns):
            # A later turn: what came before its end is taken as cached already.
            read = (total - uncached) * 3 // 4
        written = total - uncached - read
    is_long = conversation.wants_long_cache
    thinking = sum(b.tokens for b in blocks if b.whole["type"] == "thinking")
    return Usage(
        input_tokens=total - written - read,
        cache_creation_input_tokens=written,
        cache_read_input_tokens=read,
        cache_creation=CacheCreation(
            ephemeral_5m_input_tokens=0 if is_long else written,
            ephemeral_1h_input_tokens=written if is_long else 0,
        ),
        output_tokens=sum(block.tokens for block in blocks),
        output_tokens_details=OutputDetails(thinking),
    )
