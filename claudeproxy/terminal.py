"""What management commands share: secrets in, tables out."""

import getpass
import sys
from collections.abc import Sequence


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
