"""Give stored secrets a new key: the file that keeps the keys, and what they encrypt.

Secrets are re-encrypted one by one, each with a compare-and-set on the ciphertext that
was read: who writes meanwhile wins. So it may be interrupted at any point, be run
again, and run beside the gateway. A key leaves the file when no secret needs it.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import ExpressionWrapper, F, TextField, Value
from django.db.models.lookups import Exact

from claudeproxy.crypto import (
    Cipher,
    EncryptedField,
    SealedSecret,
    WrongEncryptionKeyError,
)
from claudeproxy.errors import ClaudeProxyError

BATCH_SIZE = 100


class RotationUnderWayError(ClaudeProxyError):
    """Another process is changing keys just now."""


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a model that holds secrets."""

    model: type[models.Model]
    name: str

    def __str__(self) -> str:
        return f"{self.model._meta.label}.{self.name}"

    def filled(self) -> models.QuerySet[Any]:
        return self.model._base_manager.filter(**{f"{self.name}__isnull": False})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A secret that no key opens, and whose it is."""

    column: Column
    pk: Any
    owner: str

    def __str__(self) -> str:
        return f"{self.owner} ({self.column.name})"


@dataclass(slots=True)
class Report:
    """What became of the secrets."""

    reencrypted: int = 0
    current: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)


class _End(Enum):
    REENCRYPTED = auto()
    CURRENT = auto()
    UNREADABLE = auto()
    GONE = auto()


Progress = Callable[[Column, int, int], None]


def columns() -> list[Column]:
    """Every encrypted field of every model."""
    return [
        Column(model, found.name)
        for model in apps.get_models()
        for found in model._meta.local_concrete_fields
        if isinstance(found, EncryptedField)
    ]


def rotate(keys: list[str], progress: Progress) -> Report:
    """Re-encrypt with the first of *keys* what is encrypted with another of them."""
    newest, every = Cipher(keys[:1]), Cipher(keys)
    report = Report()
    for column in columns():
        done, total = 0, column.filled().count()
        for batch in _batches(column):
            for pk, sealed in batch:
                match _rotate(column, pk, sealed, newest, every):
                    case _End.REENCRYPTED:
                        report.reencrypted += 1
                    case _End.CURRENT:
                        report.current += 1
                    case _End.UNREADABLE:
                        owner = column.model._base_manager.filter(pk=pk).first()
                        report.unreadable.append(Unreadable(column, pk, str(owner)))
            done += len(batch)
            progress(column, done, total)
    return report


def _batches(column: Column) -> Iterator[list[tuple[Any, str]]]:
    rows = column.filled().order_by("pk").values_list("pk", column.name)
    found = rows[:BATCH_SIZE]
    while batch := [(pk, secret.sealed) for pk, secret in found]:
        yield batch
        found = rows.filter(pk__gt=batch[-1][0])[:BATCH_SIZE]


def _rotate(
    column: Column, pk: Any, sealed: str, newest: Cipher, every: Cipher
) -> _End:
    while True:
        if _opens(newest, sealed):
            return _End.CURRENT
        try:
            fresh = newest.encrypt(every.decrypt(sealed))
        except WrongEncryptionKeyError:
            return _End.UNREADABLE
        if _replace(column, pk, sealed, SealedSecret(fresh, newest)):
            return _End.REENCRYPTED
        # Somebody else wrote in between; what they wrote is looked at in turn.
        again = column.filled().filter(pk=pk).values_list(column.name, flat=True)
        secret = again.first()
        if secret is None:
            return _End.GONE
        sealed = secret.sealed


def _opens(cipher: Cipher, sealed: str) -> bool:
    try:
        cipher.decrypt(sealed)
    except WrongEncryptionKeyError:
        return False
    return True


def _replace(column: Column, pk: Any, old: str, new: SealedSecret) -> bool:
    # The field itself refuses to be compared, since equal secrets look different; here
    # the very ciphertext is meant.
    stored = ExpressionWrapper(F(column.name), output_field=TextField())
    is_unchanged = Exact(stored, Value(old, output_field=TextField()))
    rows = column.model._base_manager.filter(is_unchanged, pk=pk)
    return rows.update(**{column.name: new}) == 1


# --- the file of the keys


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other rotations of this machine out; RotationUnderWayError if there is one.

    Two that add a key at a time would overwrite each other's.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RotationUnderWayError(
            "Another rotation is under way; wait until it has ended."
        ) from None


def read_keys(path: Path) -> list[str]:
    """Read the keys, the one that encrypts first."""
    return path.read_text().split()


def write_keys(path: Path, keys: list[str]) -> None:
    """Put *keys* in place of what the file holds: all of it, or nothing.

    Errors: OSError; the file is as it was then.
    """
    path = path.resolve()
    before = path.stat()
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            if os.geteuid() == 0:  # or the gateway's own user could not read it
                os.fchown(descriptor, before.st_uid, before.st_gid)
            file.write("".join(f"{key}\n" for key in keys))
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make sure that a file's new place in the directory outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
