"""Append-only files that remember requests until the database has them.

Each process has files of its own, numbered, and holds a lock for as long as it lives;
whoever gets the lock of another one's files knows that it is dead, and may take them.
A line is one JSON object and is written by one `write`. A line that is torn (the disk
was full, the machine lost power) is told by not being JSON, and costs only itself.

What is in the files is content of nobody's conversation, yet they are for their owner
alone.
"""

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from claudeproxy import secretfiles
from usage.entries import Begun, Finished

Entry = Begun | Finished

_CHUNK_BYTES = 256 * 1024
_LINES = 500  # read at a time
_FILE = re.compile(r"^(?P<owner>[0-9a-f]+)\.(?P<number>\d+)\.journal$")
_encoder = msgspec.json.Encoder()
_BEGUN = b'{"type":"begun"'
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """Write an entry as a line; JSON has no raw line ends."""
    return _encoder.encode(entry) + b"\n"


def tells_of_end(line: bytes) -> bool:
    """May a line be that of a request that is over? The others need no reading."""
    return not line.startswith(_BEGUN)


def decode(line: bytes) -> Entry | None:
    """Read a line; None if it is none, or not whole."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@dataclass(slots=True)
class Batch:
    """Some lines of a file, and where the next one begins."""

    lines: list[bytes]
    end: int


@dataclass(slots=True, eq=False)
class _File:
    path: Path
    descriptor: int
    size: int  # without what was torn off at its end
    stored: int  # everything before it is in the database

    @property
    def is_done(self) -> bool:
        return self.stored >= self.size

    def remove(self) -> None:
        os.close(self.descriptor)
        with contextlib.suppress(OSError):
            self.path.unlink()


def read_lines(descriptor: int, start: int, limit: int) -> Batch:
    """Read up to *limit* whole lines from *start* on; at least one, however long."""
    data = b""
    at = start
    while piece := os.pread(descriptor, _CHUNK_BYTES, at):
        data += piece
        at += len(piece)
        if b"\n" in piece:
            break
    lines = data.split(b"\n", limit)[:limit] if data.count(b"\n") >= limit else []
    if not lines:
        lines = data.split(b"\n")[:-1]
    return Batch(lines, start + sum(map(len, lines)) + len(lines))


@dataclass(eq=False)
class Journal:
    """The files of this process: written at the end, read behind what is stored.

    For one thread.
    """

    directory: Path
    owner: str = field(default_factory=lambda: secrets.token_hex(12))
    last_error: OSError | None = None
    _lock: int | None = None
    _files: list[_File] = field(default_factory=list)
    _number: int = 0
    _torn_bytes: int = 0

    @property
    def is_open(self) -> bool:
        return bool(self._files)

    @property
    def size(self) -> int:
        """Bytes in the file that is written to."""
        return self._files[-1].size if self._files else 0

    def open(self) -> None:
        """Begin; OSError if the directory cannot be used."""
        secretfiles.ensure_directory(self.directory)
        if self._lock is None:
            self._lock = _new_lock(self.directory, self.owner)
        self.rotate(b"")

    def rotate(self, carried: bytes) -> None:
        """Go on in a new file that begins with *carried*; OSError if that fails.

        Files before it are needed no more once what is in them is stored.
        """
        self._number += 1
        path = self.directory / f"{self.owner}.{self._number:08}.journal"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
        descriptor = os.open(path, flags, 0o600)
        # What is carried has only begun: there is nothing to store.
        file = _File(path, descriptor, size=len(carried), stored=len(carried))
        try:
            if os.write(descriptor, carried) != len(carried):
                raise OSError("the disk is full")
        except OSError:
            file.remove()
            raise
        self._files.append(file)
        self._torn_bytes = 0
        self._mark()

    def write(self, line: bytes) -> bool:
        """Append a line; False if it could not be written whole."""
        if not self._files:
            return False
        file = self._files[-1]
        # What was torn off must not swallow what comes after it.
        data = b"\n" + line if self._torn_bytes else line
        try:
            written = os.write(file.descriptor, data)
        except OSError as error:
            self.last_error = error
            return False
        if written == len(data):
            file.size += self._torn_bytes + written
            self._torn_bytes = 0
            return True
        self._torn_bytes += written
        return False

    def read(self, limit: int) -> Batch:
        """Read lines that are not stored yet, the oldest first."""
        for file in self._files:
            if not file.is_done:
                return read_lines(file.descriptor, file.stored, limit)
        return Batch([], 0)

    def note_stored(self, batch: Batch) -> None:
        """What was read last is in the database: forget the files that are done."""
        for file in self._files:
            if not file.is_done:
                file.stored = batch.end
                break
        while len(self._files) > 1 and self._files[0].is_done:
            self._files.pop(0).remove()
        self._mark()

    def _mark(self) -> None:
        """Write into the lock how far the database has come, for others to read."""
        if self._lock is None:
            return
        file = next((it for it in self._files if not it.is_done), self._files[-1])
        with contextlib.suppress(OSError):  # then they take it for more than it is
            os.pwrite(self._lock, _mark_of(file.path, file.stored), 0)

    def close(self, *, keeps_last: bool = False) -> None:
        """End; what is not stored, or is to be kept, waits for the next start."""
        if not keeps_last and all(file.is_done for file in self._files):
            while self._files:
                self._files.pop().remove()
            if self._lock is not None:
                _lock_path(self.directory, self.owner).unlink(missing_ok=True)
        for file in self._files:
            os.close(file.descriptor)
        self._files.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock_path(directory: Path, owner: str) -> Path:
    return directory / f"{owner}.lock"


def _new_lock(directory: Path, owner: str) -> int:
    """Make a lock that nobody ever sees free."""
    draft = directory / f".{owner}.draft"
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    draft.rename(_lock_path(directory, owner))
    return descriptor


@dataclass(frozen=True, slots=True)
class Leftover:
    """The files of a process that is dead, in their order."""

    directory: Path
    owner: str
    files: tuple[Path, ...]

    def lines(self) -> Iterator[list[bytes]]:
        """Yield all lines, some at a time; the last of a file may be torn."""
        for path in self.files:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                at = 0
                while (batch := read_lines(descriptor, at, _LINES)).lines:
                    yield batch.lines
                    at = batch.end
                if rest := os.pread(descriptor, _CHUNK_BYTES, at):
                    yield [rest]
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Everything in them is stored."""
        for path in self.files:
            path.unlink()


@contextlib.contextmanager
def claimed(directory: Path, owner: str) -> Iterator[Leftover | None]:
    """Take what *owner* left; yields None if that is alive, or somebody else has it."""
    path = _lock_path(directory, owner)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        if not _is_same(descriptor, path):
            yield None  # another one has taken all, and the lock with it
            return
        files = tuple(sorted(directory.glob(f"{owner}.*.journal")))
        yield Leftover(directory, owner, files)
        if not any(directory.glob(f"{owner}.*.journal")):
            path.unlink()
    finally:
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@dataclass(slots=True)
class Backlog:
    """What waits in journals for the database; requests under way are not in it."""

    files: int = 0
    bytes: int = 0
    since: datetime | None = None  # when the first of these requests was over


def backlog(directory: Path) -> Backlog:
    """Measure what the processes of this machine, dead or alive, have not stored yet.

    It is read from outside, so it is as of half a second ago.
    """
    found = Backlog()
    for owner in owners(directory):
        marked, stored = _read_mark(_lock_path(directory, owner))
        for path in directory.glob(f"{owner}.*.journal"):
            # Who ended well has removed them between two of these lines.
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                start = stored if path.name == marked else 0
                if path.name < marked or stat.st_size <= start:
                    continue
                found.bytes += stat.st_size - start
                found.files += 1
                try:
                    end = _first_end(path, start)
                except PermissionError:  # left by a gateway of another user
                    end = datetime.fromtimestamp(stat.st_mtime, UTC)
                found.since = min(filter(None, (found.since, end)), default=None)
    return found


def _first_end(path: Path, start: int) -> datetime | None:
    """When the first request of those lines was over; None if none of them was."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        at = start
        while (batch := read_lines(descriptor, at, _LINES)).lines:
            for line in filter(tells_of_end, batch.lines):
                if isinstance(entry := decode(line), Finished):
                    return entry.started_at + timedelta(milliseconds=entry.duration_ms)
            at = batch.end
    finally:
        os.close(descriptor)
    return None


def _mark_of(path: Path, stored: int) -> bytes:
    return f"{stored:016} {path.name}\n".encode()


def _read_mark(path: Path) -> tuple[str, int]:
    """Up to where a process has stored: a file, and a place in it."""
    try:
        stored, name = path.read_text().split()
        return name, int(stored)
    except (OSError, ValueError):
        return "", 0


def owners(directory: Path) -> set[str]:
    """Whose files are there, dead or alive."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if match := _FILE.match(name):
                found.add(match["owner"])
            elif name.endswith(".lock"):
                found.add(name.removesuffix(".lock"))
    return found
