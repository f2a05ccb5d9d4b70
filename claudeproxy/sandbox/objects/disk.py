"""Keeps large bodies in files of the sandbox's own, so that memory stays small."""

import contextlib
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, overload

from claudeproxy.sandbox.errors import ApiError

PIECE_BYTES: Final = 64 * 1024
CAPACITY_BYTES: Final = 4 * 1024**3

Buffer = bytes | mmap.mmap


class Disk:
    """A directory that is made when first needed and goes with its owner."""

    def __init__(self) -> None:
        self._directory: Path | None = None

    def new_file(self) -> Path:
        """Make an empty file."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="claude-sandbox-"))
            weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        handle, name = tempfile.mkstemp(dir=self._directory)
        os.close(handle)
        return Path(name)

    @contextlib.contextmanager
    def temporary(self) -> Iterator[BinaryIO]:
        """Make a file that goes at the end of the block, unless it was kept."""
        path = self.new_file()
        try:
            with path.open("wb") as file:
                yield file
        finally:
            path.unlink(missing_ok=True)

    def keep(self, path: Path) -> Path:
        """Take a file over from whoever made it, under another name.

        Errors: ApiError 400 if that would be too much.
        """
        used = sum(file.stat().st_size for file in path.parent.iterdir())
        if used > CAPACITY_BYTES:
            text = f"The sandbox keeps {CAPACITY_BYTES} bytes; delete some files"
            raise ApiError(400, text, code="storage_quota_exceeded")
        return path.rename(self.new_file())

    def clear(self) -> None:
        """Delete all files."""
        if self._directory is not None:
            for path in self._directory.iterdir():
                path.unlink(missing_ok=True)


def open_buffer(path: Path) -> Buffer:
    """Open a file as something to search and to cut, without reading it all."""
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a file."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Read it whole."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


class Pieces(Sequence[bytes]):
    """A part of a file in pieces that are read only when they are sent."""

    def __init__(self, extent: Extent, numbers: range | None = None) -> None:
        self._extent = extent
        count = -(-extent.size // PIECE_BYTES)
        self._numbers = range(count) if numbers is None else numbers
        # Kept open, since the file may be deleted while it is being sent.
        self._handle = os.open(extent.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[bytes]:
        return map(self._read, self._numbers)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "Pieces": ...
    def __getitem__(self, index: int | slice) -> "bytes | Pieces":
        if isinstance(index, slice):
            return Pieces(self._extent, self._numbers[index])
        return self._read(self._numbers[index])

    def _read(self, number: int) -> bytes:
        offset = number * PIECE_BYTES
        size = min(PIECE_BYTES, self._extent.size - offset)
        return os.pread(self._handle, size, self._extent.start + offset)
