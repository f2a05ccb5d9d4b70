"""The script of faults: what the next requests of an account shall meet."""

import re
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from claudeproxy.sandbox.accounts import EVERYONE
from claudeproxy.sandbox.errors import ControlError, readable
from claudeproxy.sandbox.log import Outcome

MESSAGES_PATH: Final = "/v1/messages"
TOKEN_PATH: Final = "/v1/oauth/token"  # noqa: S105  # a path
OWN_HEADERS: Final = ("content-length", "transfer-encoding", "x-claude-sandbox")
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
ENDINGS: Final = (
    "cut_before_frame",
    "cut_at_byte",
    "end_after_frame",
    "error_at_frame",
    "hang",
    "reset",
    "lose_answer",
)
TOKEN_FIELDS: Final = ("lose_answer", "omit_refresh_token")
# What only means something for an ordinary answer.
SHAPING: Final = (
    "frames",
    "text",
    "usage",
    "end_after_frame",
    "error_at_frame",
    *TOKEN_FIELDS,
)

Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
FrameNumber = Annotated[int, Meta(ge=1, le=1_000_000)]
ByteCount = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Status = Annotated[int, Meta(ge=200, le=599)]
BeforeHead = Literal["before_head"]


def _is_writable(value: object) -> bool:
    """Tell whether *value* is JSON, as half a surrogate pair, say, is not."""
    try:
        msgspec.json.encode(None if value is UNSET else value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _check_header(name: str, value: str | None) -> None:
    if not HEADER_NAME.fullmatch(name):
        raise ValueError(f"headers: {name!r} is not a header name")
    if name.lower() in OWN_HEADERS:
        raise ValueError(f"headers: {name.lower()} is set by the sandbox itself")
    if value is not None and not HEADER_VALUE.fullmatch(value):
        raise ValueError(f"headers: the value of {name} has forbidden characters")


class ResetAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many bytes of the body go out before the connection is reset."""

    at_byte: ByteCount


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request meets; a field left out changes nothing."""

    times: Annotated[int, Meta(ge=1)] | Literal["forever"] = 1
    path: str | None = None
    status: Status | None = None
    headers: dict[str, str | None] | list[tuple[str, str | None]] = {}
    body: object | UnsetType = UNSET
    delay_ms: Milliseconds = 0
    first_frame_delay_ms: Milliseconds = 0
    frame_delay_ms: Milliseconds = 0
    frames: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    text: str | None = None
    usage: dict[str, object] | None = None
    split_every: Annotated[int, Meta(ge=1)] | None = None
    line_ending: Literal["\n", "\r\n", "\r"] = "\n"
    cut_before_frame: FrameNumber | None = None
    cut_at_byte: ByteCount | BeforeHead | None = None
    end_after_frame: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    error_at_frame: FrameNumber | None = None
    error_type: str | None = None
    error_message: str | None = None
    hang: FrameNumber | BeforeHead | None = None
    reset: ResetAt | BeforeHead | None = None
    lose_answer: bool = False
    omit_refresh_token: bool = False

    def __post_init__(self) -> None:
        endings = self._set_among(ENDINGS)
        if len(endings) > 1:
            raise ValueError(f"{' and '.join(endings)} exclude each other")
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError("path must begin with /")
        replaced = self.body is not UNSET or (self.status or 0) >= 400
        shaping = self._set_among(SHAPING)
        if replaced and shaping:
            raise ValueError(f"a body or an error status excludes {shaping[0]}")
        errors_out = self.error_at_frame is not None or (self.status or 0) >= 400
        if not errors_out and (self.error_type or self.error_message) is not None:
            raise ValueError(
                "error_type and error_message need error_at_frame or an error status"
            )
        for name in self._set_among(TOKEN_FIELDS):
            if not self.matches(TOKEN_PATH):
                raise ValueError(f"{name} needs a path that {TOKEN_PATH} begins with")
        for name in ("text", "usage", "error_type", "error_message", "body"):
            if not _is_writable(getattr(self, name)):
                raise ValueError(f"{name} cannot be written as JSON")
        for name, value in self.header_pairs:
            _check_header(name, value)

    def _set_among(self, names: Sequence[str]) -> list[str]:
        # By identity, since 0 is a value too.
        unset = (None, False)
        return [
            name
            for name in names
            if not any(getattr(self, name) is value for value in unset)
        ]

    @property
    def header_pairs(self) -> list[tuple[str, str | None]]:
        """The headers as pairs; None takes a header away."""
        if isinstance(self.headers, dict):
            return list(self.headers.items())
        return self.headers

    @property
    def ending_before_head(self) -> Outcome | None:
        """How the answer ends before it has begun, None if it begins."""
        if self.hang == "before_head":
            return Outcome.HANG
        if self.reset == "before_head":
            return Outcome.RESET
        if self.cut_at_byte == "before_head" or self.lose_answer:
            return Outcome.CUT
        return None

    @property
    def has_body(self) -> bool:
        """Whether the step brings its own body."""
        return self.body is not UNSET

    @property
    def prevents_work(self) -> bool:
        """Whether the connection breaks before the server has done anything."""
        return self.ending_before_head is not None and not self.lose_answer

    def matches(self, path: str) -> bool:
        """Tell whether a request to *path* takes this step."""
        if self.path is None:
            return path == MESSAGES_PATH
        return path.startswith(self.path)


NOTHING: Final = Step()


class ScriptRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call that appends to the script."""

    account: str
    steps: list[Step]


@dataclass(slots=True)
class Pending:
    """A step in the queue and how often it is still due; None means for ever."""

    step: Step
    left: int | None


class Script:
    """The steps due for each account, in order."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Pending]] = {}
        # Tests append from their own thread while the server takes.
        self._lock = threading.Lock()

    def add(self, account: str, *steps: Step | Mapping[str, object]) -> None:
        """Append *steps* to what comes next for an account, or for everyone ("*").

        Errors: ControlError 400 that names the field.
        """
        checked = [
            step if isinstance(step, Step) else parse_step(step, f"steps.{number}")
            for number, step in enumerate(steps)
        ]
        pending = [
            Pending(step, None if step.times == "forever" else step.times)
            for step in checked
        ]
        with self._lock:
            self._queues.setdefault(account, deque()).extend(pending)

    def take(self, account: str, path: str) -> Step | None:
        """Use up the next step for a request; the account's own come first."""
        if not self._queues:
            return None
        with self._lock:
            for name in (account, EVERYONE):
                queue = self._queues.get(name, ())
                found = next((item for item in queue if item.step.matches(path)), None)
                if found is not None:
                    self._use(name, found)
                    return found.step
        return None

    def _use(self, account: str, item: Pending) -> None:
        if item.left is None:
            return
        item.left -= 1
        if item.left == 0:
            queue = self._queues[account]
            # By identity: two equal steps are still two.
            kept = deque(other for other in queue if other is not item)
            self._queues[account] = kept
            if not kept:
                del self._queues[account]

    def clear(self, account: str | None = None) -> None:
        """Forget the steps of one account, or all."""
        with self._lock:
            if account is None:
                self._queues.clear()
            else:
                self._queues.pop(account, None)

    def pending(self) -> dict[str, int]:
        """Count the steps that wait, by account."""
        with self._lock:
            return {name: len(queue) for name, queue in self._queues.items()}


def parse_request(body: bytes) -> ScriptRequest:
    """Read the body of a call that appends to the script.

    Errors: ControlError 400 that names the field.
    """
    try:
        return msgspec.json.decode(body, type=ScriptRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ControlError(400, readable(exc)) from exc


def parse_step(step: Mapping[str, object], where: str = "") -> Step:
    """Check one step given as a mapping.

    Errors: ControlError 400 that names the field.
    """
    try:
        return msgspec.convert(dict(step), Step)
    except msgspec.ValidationError as exc:
        raise ControlError(400, readable(exc, where)) from exc
