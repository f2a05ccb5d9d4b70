"""Secrets the gateway makes for itself, each in a file only its owner can read."""

import base64
import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def usable(variable: str, path: Path) -> Iterator[None]:
    """End the process with one line if the directory *path* cannot be used.

    Without a traceback: whoever set *variable* has something to mend, not to debug.
    """
    try:
        yield
    except OSError as error:
        raise SystemExit(
            f"{variable}: {path} cannot be used ({error.strerror}: {error.filename}). "
            f"Set {variable} to a directory that this user may make and write, or give "
            "it to this user: chown and chmod 700."
        ) from None


def ensure_directory(path: Path) -> None:
    """Make *path* with mode 0700; one that is there already keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_or_create(path: Path, make: Callable[[], str]) -> str:
    """Return what *path* holds; write what *make* returns into it (0600) if absent.

    Several processes may start at once: each writes a file of its own and links it
    into place. The first link wins, and all read that one.
    """
    if not path.exists():
        ensure_directory(path.parent)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(make() + "\n")
                file.flush()
                os.fsync(file.fileno())
            # Another process may have been first; then its secret is the one.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    # What is no text is no secret either, and is told of by whoever uses it.
    return path.read_text(encoding="utf-8", errors="replace").strip()


def new_fernet_key() -> str:
    """Return a key for `ENCRYPTION_KEYS`: 32 random bytes, base64url."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
