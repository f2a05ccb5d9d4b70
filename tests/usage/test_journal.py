"""Files that remember requests, however their process ended."""

import errno
import fcntl
import os
import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usage.cast import begun, finished
from usage import journal
from usage.journal import Journal


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def mine(directory):
    it = Journal(directory)
    it.open()
    yield it
    it.close()


def names(directory, pattern="*"):
    return sorted(path.name for path in directory.glob(pattern))


def all_lines(directory, owner) -> list[bytes]:
    with journal.claimed(directory, owner) as leftover:
        assert leftover is not None
        return [line for lines in leftover.lines() for line in lines]


def test_a_line_says_what_was_written():
    for entry in (begun(), finished()):
        line = journal.encode(entry)

        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert journal.decode(line[:-1]) == entry


def test_the_line_of_an_end_is_told_by_its_beginning():
    assert journal.tells_of_end(journal.encode(finished()))
    assert not journal.tells_of_end(journal.encode(begun()))


def test_the_files_are_for_their_owner_alone(directory, mine):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}

    assert modes == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_what_was_written_is_read_in_order(mine):
    for number in range(5):
        assert mine.write(b"%d\n" % number)

    first = mine.read(3)
    mine.note_stored(first)

    assert first.lines == [b"0", b"1", b"2"]
    assert mine.read(3).lines == [b"3", b"4"]


def test_what_is_not_stored_is_read_again(mine):
    mine.write(b"x\n")

    assert mine.read(3) == mine.read(3)


def test_a_line_may_be_longer_than_what_is_read_at_once(mine):
    long = b"x" * 600_000
    mine.write(long + b"\n")
    mine.write(b"y\n")

    assert mine.read(1).lines == [long]
    assert mine.read(9).lines[0] == long


def test_a_file_goes_once_all_of_it_is_stored(directory, mine):
    mine.write(b"a\n")
    mine.rotate(b"")
    mine.write(b"b\n")
    assert len(names(directory, "*.journal")) == 2

    mine.note_stored(mine.read(9))

    assert len(names(directory, "*.journal")) == 1
    assert mine.read(9).lines == [b"b"]


def test_what_is_carried_over_is_not_stored_again(directory, mine):
    mine.write(b"a\n")
    mine.note_stored(mine.read(9))
    mine.rotate(b"carried\n")

    assert mine.read(9).lines == []
    mine.write(b"b\n")
    assert mine.read(9).lines == [b"b"]


def test_nothing_is_left_of_a_journal_that_is_wholly_stored(directory, mine):
    mine.write(b"a\n")
    mine.note_stored(mine.read(9))
    mine.close()

    assert names(directory) == []


@pytest.mark.parametrize("is_stored", [True, False])
def test_what_is_not_over_stays_for_the_next_start(directory, mine, is_stored):
    mine.write(b"a\n")
    if is_stored:
        mine.note_stored(mine.read(9))
    mine.close(keeps_last=is_stored)

    assert all_lines(directory, mine.owner) == [b"a"]


# --- whose it is


def test_the_files_of_the_living_are_not_taken(directory, mine):
    with journal.claimed(directory, mine.owner) as leftover:
        assert leftover is None


def test_the_files_of_the_dead_are_taken_by_one(directory, mine):
    mine.write(b"a\n")
    mine.close()

    with (
        journal.claimed(directory, mine.owner) as first,
        journal.claimed(directory, mine.owner) as second,
    ):
        assert first is not None
        assert second is None


def test_a_lock_that_was_taken_away_meanwhile_is_worth_nothing(
    directory, mine, monkeypatch
):
    mine.write(b"a\n")
    mine.close()
    lock = directory / f"{mine.owner}.lock"
    flock = fcntl.flock

    def too_late(descriptor: int, how: int) -> None:
        lock.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with journal.claimed(directory, mine.owner) as leftover:
        assert leftover is None


def test_what_was_taken_and_removed_leaves_nothing(directory, mine):
    mine.write(b"a\n")
    mine.close()
    with journal.claimed(directory, mine.owner) as leftover:
        assert leftover is not None
        leftover.remove()

    assert names(directory) == []
    assert journal.owners(directory) == set()


def test_what_was_taken_and_kept_can_be_taken_again(directory, mine):
    mine.write(b"a\n")
    mine.close()
    with journal.claimed(directory, mine.owner):
        pass

    assert journal.owners(directory) == {mine.owner}
    assert all_lines(directory, mine.owner) == [b"a"]


def test_other_files_are_nobodys(directory, mine):
    (directory / "notes.txt").write_text("x")

    assert journal.owners(directory) == {mine.owner}
    assert journal.owners(directory / "missing") == set()


# --- a disk that is full


class Disk:
    """A disk that takes so many bytes more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fits = data[: self.room]
        self.room -= len(fits)
        return self._write(descriptor, fits)


@given(rooms=st.lists(st.integers(0, 60), max_size=12))
def test_a_full_disk_costs_only_the_lines_it_tears(rooms, tmp_path_factory):
    it = Journal(tmp_path_factory.mktemp("full"))
    it.open()
    disk: Any = Disk(0)
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", disk.write)
        for number, room in enumerate([*rooms, 1000]):
            disk.room = room
            line = journal.encode(begun(f"req_{number}"))[:40] + b"\n"
            if it.write(line):
                taken.append(line[:-1])
    found = []
    while (batch := it.read(2)).lines:
        found += batch.lines
        it.note_stored(batch)
    it.close()

    assert [line for line in found if line in taken] == taken
    assert names(it.directory) == []


def test_a_new_file_that_the_disk_refuses_changes_nothing(directory, mine, monkeypatch):
    mine.write(b"a\n")
    monkeypatch.setattr(os, "write", Disk(3).write)
    with pytest.raises(OSError, match="full"):
        mine.rotate(b"carried\n")
    monkeypatch.undo()

    assert mine.write(b"b\n")
    assert mine.read(9).lines == [b"a", b"b"]
    assert len(names(directory, "*.journal")) == 1


def test_a_journal_that_is_not_open_takes_nothing(directory):
    it = Journal(directory)

    assert not it.write(b"a\n")
    assert it.read(1).lines == []
    assert not it.is_open
    it.close()
