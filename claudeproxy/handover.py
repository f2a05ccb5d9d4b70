"""Hands a running gateway over to newer code: its port and its processes.

The supervisor replaces its own program, which keeps the pid that a service manager
knows, the listening socket, and the children. What becomes of these is decided by
`supervisor`.
"""

import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PREPARE_ONLY = "--prepare-only"

_VARIABLE = "CLAUDE_PROXY_HANDOVER"


@dataclass(frozen=True)
class Predecessor:
    """A process that the program before this one started."""

    name: str
    pid: int


@dataclass(frozen=True)
class Estate:
    """What the program before this one left."""

    listener: socket.socket
    predecessors: tuple[Predecessor, ...]


def take_over() -> Estate | None:
    """Return what was handed over to this process, once; None if nothing was."""
    owner, _, rest = os.environ.pop(_VARIABLE, "").partition(" ")
    if owner != str(os.getpid()):
        return None
    descriptor, *processes = rest.split()
    listener = socket.socket(fileno=int(descriptor))
    listener.set_inheritable(False)
    named = (process.split("=") for process in processes)
    return Estate(listener, tuple(Predecessor(name, int(pid)) for name, pid in named))


def rehearse() -> NoReturn:
    """Become a process that does all of a start but serving.

    Its exit code tells whether the code and the settings of now can be trusted with
    the gateway: once it was handed over, there is no way back.
    """
    os.execve(  # noqa: S606  # ourselves
        sys.executable, [*_command(), PREPARE_ONLY], _first_environment()
    )


def hand_over(listener: socket.socket, predecessors: Iterable[Predecessor]) -> NoReturn:
    """Become the program that is installed now.

    Signals that the caller has blocked stay blocked, and wait for the successor.
    Errors: OSError; then nothing has changed.
    """
    processes = (f"{each.name}={each.pid}" for each in predecessors)
    handed = " ".join([str(os.getpid()), str(listener.fileno()), *processes])
    listener.set_inheritable(True)
    try:
        os.execve(  # noqa: S606  # ourselves
            sys.executable, _command(), _first_environment() | {_VARIABLE: handed}
        )
    finally:
        listener.set_inheritable(False)


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


def _first_environment() -> dict[str, str]:
    """Return the environment as it was before `.env` was read into it.

    Variables that are set win over the file, so that its changes would not be seen.
    """
    try:
        block = Path("/proc/self/environ").read_bytes()
    except OSError:  # not Linux
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in block.split(b"\0") if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
