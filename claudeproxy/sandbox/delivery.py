"""Plans how an answer goes out: in which pieces, and how it ends. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from claudeproxy.sandbox import answers, errors
from claudeproxy.sandbox.log import Outcome, TokenOutcome
from claudeproxy.sandbox.script import ResetAt, Step


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before the script has bent it; a small plain body is one frame."""

    status: int
    headers: list[tuple[bytes, bytes]]
    frames: Sequence[bytes]
    is_stream: bool = False
    token_outcome: TokenOutcome | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces to send, and what happens after the last."""

    pieces: Sequence[bytes]
    ending: Outcome
    frame_ends: Sequence[int]

    @property
    def ends_cleanly(self) -> bool:
        """Whether the body gets its proper end."""
        return self.ending not in (Outcome.CUT, Outcome.RESET, Outcome.HANG)

    def frames_in(self, sent_bytes: int) -> int:
        """Count the frames that lie wholly within the first *sent_bytes*."""
        return bisect_right(self.frame_ends, sent_bytes)


def plan(reply: Reply, step: Step, request_id: str) -> Plan:
    """Bend an answer as the script says.

    Frames are counted from 1. A number beyond the last frame or byte means: after it.
    """
    frames: Sequence[bytes] = reply.frames
    ending = Outcome.COMPLETE
    if reply.is_stream:
        frames, ending = _bend_stream(reply.frames, step, request_id)
        if step.line_ending != "\n":
            # JSON has no bare line breaks, so all of them are the frame's own.
            mark = step.line_ending.encode()
            frames = [frame.replace(b"\n", mark) for frame in frames]
    if step.cut_before_frame is not None:
        frames, ending = frames[: step.cut_before_frame - 1], Outcome.CUT
    if isinstance(step.hang, int):
        frames, ending = frames[: step.hang - 1], Outcome.HANG
    frame_ends = list(accumulate(map(len, frames))) if reply.is_stream else []
    pieces = frames
    if isinstance(step.cut_at_byte, int):
        pieces, ending = _first_bytes(frames, step.cut_at_byte), Outcome.CUT
    if isinstance(step.reset, ResetAt):
        pieces, ending = _first_bytes(frames, step.reset.at_byte), Outcome.RESET
    if step.split_every is not None:
        pieces = _split(b"".join(pieces), step.split_every)
    return Plan(pieces, ending, frame_ends)


def _bend_stream(
    frames: Sequence[bytes], step: Step, request_id: str
) -> tuple[Sequence[bytes], Outcome]:
    if step.end_after_frame is not None:
        is_whole = step.end_after_frame >= len(frames)
        ending = Outcome.COMPLETE if is_whole else Outcome.ENDED_EARLY
        return frames[: step.end_after_frame], ending
    if step.error_at_frame is not None:
        kind = step.error_type or "overloaded_error"
        text = step.error_message or "The sandbox was told to fail here."
        data = errors.envelope(kind, text, request_id)
        kept = frames[: step.error_at_frame - 1]
        return [*kept, answers.frame("error", data)], Outcome.ERROR_EVENT
    return frames, Outcome.COMPLETE


def _first_bytes(frames: Sequence[bytes], count: int) -> list[bytes]:
    kept: list[bytes] = []
    for frame in frames:
        if count <= 0:
            break
        kept.append(frame[:count])
        count -= len(frame)
    return kept


def _split(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]
