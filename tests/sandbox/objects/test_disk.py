"""Files of the sandbox's own."""

import gc
from pathlib import Path

import pytest

from claudeproxy.sandbox.objects.disk import PIECE_BYTES, Disk, Extent, Pieces


def fill(disk: Disk, content: bytes) -> Path:
    path = disk.new_file()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_pieces_are_the_content(size: int) -> None:
    disk = Disk()
    content = bytes(number % 251 for number in range(size))
    extent = Extent(fill(disk, b"head" + content + b"tail"), 4, size)
    pieces = Pieces(extent)
    assert b"".join(pieces) == content
    assert b"".join(pieces[number] for number in range(len(pieces))) == content
    assert b"".join(pieces[1:]) == content[PIECE_BYTES:]
    assert extent.read() == content


def test_pieces_outlive_their_file() -> None:
    disk = Disk()
    path = fill(disk, b"content")
    pieces = Pieces(Extent(path, 0, 7))
    disk.clear()
    assert not path.exists()
    assert list(pieces) == [b"content"]


def test_a_temporary_file_goes_unless_it_was_kept() -> None:
    disk = Disk()
    with disk.temporary() as file:
        gone = Path(file.name)
    with disk.temporary() as file:
        file.write(b"content")
        kept = disk.keep(Path(file.name))
    assert not gone.exists()
    assert kept.read_bytes() == b"content"


def test_the_directory_goes_with_its_owner() -> None:
    disk = Disk()
    directory = disk.new_file().parent
    del disk
    gc.collect()
    assert not directory.exists()
