"""What management commands share: secrets in, tables and progress out."""

import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

_BAR = 24
_SHOWN_EVERY_SECONDS = 0.2


def read_secret(prompt: str) -> str:
    """Read a secret from a prompt without echo, or from standard input if piped.

    Never from an argument: those are seen by everyone who may list processes.
    """
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    return sys.stdin.readline()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Set rows in columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in (head, ["-" * width for width in widths], *rows)
    )


@contextmanager
def progress(
    stream: Any, estimate: Callable[[], int]
) -> Iterator[Callable[[int], None]]:
    """Show how far something is; yields what to tell how much more was done.

    Only people see it: where *stream* is no terminal, nothing is written, and the total
    is not asked for. It is an estimate, and 0 if there is none.
    """
    if not stream.isatty():
        yield lambda _: None
        return
    total, done, shown_at = estimate(), 0, 0.0

    def note(more: int) -> None:
        nonlocal done, shown_at
        done += more
        if monotonic() - shown_at > _SHOWN_EVERY_SECONDS:
            shown_at = monotonic()
            stream.write(f"\r{progress_line(done, total)}", ending="")
            stream.flush()

    try:
        yield note
    finally:
        stream.write(f"\r{progress_line(done, done)}")


def progress_line(done: int, total: int) -> str:
    """Say how much of an estimated total is done, in a line that never gets shorter."""
    if done > total or total == 0:
        return f"{done:,} rows".ljust(_BAR + 40)
    filled = _BAR * done // total
    bar = "#" * filled + "." * (_BAR - filled)
    return f"[{bar}] {done:,} of about {total:,} rows, {done * 100 // total} %".ljust(
        _BAR + 40
    )
