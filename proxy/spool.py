"""Bodies too large for memory: kept in files that have no name.

A file without a name can be opened by nobody else, and is gone with the process that
has it open, however that ends. Where the system knows no nameless files, the name is
removed before the first byte is written. Disks are slow at times, so all work on a file
is done in a thread, a piece at a time.
"""

import asyncio
import errno
import os
import re
import tempfile
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import TypeVar

import structlog

from claudeproxy import secretfiles
from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError

_log = structlog.get_logger(__name__)

T = TypeVar("T")

# What is written or read at once; a body up to this size is left in memory.
PIECE_BYTES = 1024**2
# Bodies never take the last of the disk: the database may live there too.
_RESERVE_BYTES = 256 * 1024**2
# A regex holds the interpreter's lock until it is through with what it was given.
_SEARCHED_BYTES = 256 * 1024
LONGEST_MATCH_BYTES = 4 * 1024

# Not the database's: neither is to wait for the other.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="spool")


class SpoolError(ClaudeProxyError):
    """A body could not be kept, or not be read again; no account is to blame."""

    http_status: int = HTTPStatus.INSUFFICIENT_STORAGE
    # The whole body would be sent again, to meet the same disk.
    should_retry = False

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"This gateway cannot keep a request of this size on its disk ({reason}). "
            "Try again later, or ask its operator to look after the disk of DATA_DIR."
        )


class FileBody:
    """A body in a file, to be read from its start as often as it is sent.

    It is filled once, by `append`. Several may read at a time, and `close` may come
    while they do.
    """

    def __init__(self, expected_bytes: int = 0) -> None:
        self._folder = conf.data_dir / "bodies"
        self._expected_bytes = expected_bytes
        self._size = 0
        self._file: FileIO | None = None
        self._is_closed = False
        # A thread may still be at work for a task that was cancelled. Closing waits for
        # it: the number of the file would soon be that of another.
        self._lock = Lock()

    @property
    def size(self) -> int:
        return self._size

    def __len__(self) -> int:
        return self._size

    async def append(self, piece: bytes | bytearray) -> None:
        """Put *piece* behind what is there.

        Errors: SpoolError if the disk does not take it.
        """
        await self._in_thread(partial(self._append, piece))

    async def read(self, start: int, size: int) -> bytes:
        """Return so many bytes from *start*; fewer at the end.

        Errors: SpoolError if the disk does not give them.
        """
        return await self._in_thread(partial(self._read, start, size))

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the whole body; no thread is held in between."""
        for start in range(0, self._size, PIECE_BYTES):
            yield await self.read(start, PIECE_BYTES)

    async def find_all(self, pattern: re.Pattern[bytes], *, limit: int) -> set[bytes]:
        """Return what *pattern* finds: its first group, or all of it if it has none.

        Shape: at most *limit* results, so whoever must have all asks for one more.
        No match may need more than LONGEST_MATCH_BYTES, nor look behind itself.
        """
        return await self._in_thread(partial(self._find_all, pattern, limit))

    def close(self) -> None:
        """Give the space back; does not wait for it."""
        # To free the blocks of a large file takes a while.
        _threads.submit(self._close)

    # --- in a thread

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(_threads, work)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            _log.error("body_not_kept", folder=str(self._folder), reason=reason)
            raise SpoolError(reason) from error

    def _append(self, piece: bytes | bytearray) -> None:
        with self._lock:
            if self._is_closed:
                return
            if self._file is None:
                self._file = _new_file(self._folder)
            still_expected = max(self._expected_bytes - self._size, len(piece))
            _require_room(self._file.fileno(), still_expected)
            left = memoryview(piece)
            while left:
                left = left[os.write(self._file.fileno(), left) :]
            self._size += len(piece)

    def _read(self, start: int, size: int) -> bytes:
        end = min(start + size, self._size)
        with self._lock:
            if self._file is None:
                raise ValueError("the body is closed")
            piece = os.pread(self._file.fileno(), max(end - start, 0), start)
        if len(piece) < end - start:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return piece

    def _find_all(self, pattern: re.Pattern[bytes], limit: int) -> set[bytes]:
        found: set[bytes] = set()
        group = min(pattern.groups, 1)
        start = 0
        while start < self._size:
            # A mapped file would be read from the disk under the interpreter's lock.
            piece = self._read(start, _SEARCHED_BYTES + LONGEST_MATCH_BYTES)
            is_last = start + len(piece) >= self._size
            seen = len(piece) if is_last else _SEARCHED_BYTES
            for match in pattern.finditer(piece):
                if match.start() >= seen:
                    break  # the next piece has all of it
                found.add(match[group])
                if len(found) >= limit:
                    return found
                seen = max(seen, match.end())
            start += seen
        return found

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._file is not None:
                self._file.close()
                self._file = None


def _new_file(folder: Path) -> FileIO:
    secretfiles.ensure_directory(folder)
    # For its owner only (0600), and nameless before anything is written to it.
    return tempfile.TemporaryFile(buffering=0, dir=folder)


def _require_room(descriptor: int, size: int) -> None:
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize < size + _RESERVE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


Body = bytes | FileBody
