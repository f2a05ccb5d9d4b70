"""What dead processes had written down is in the table, once."""

import random
from datetime import datetime
from typing import Any

import pytest
from django.db import OperationalError

from tests.usage.cast import begun, finished
from usage import journal, recovery, store
from usage.journal import Journal
from usage.models import RequestRow
from usage.prices import PriceTable

pytestmark = pytest.mark.django_db

NO_PRICES = PriceTable([])


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal"


def leave(directory, *files: bytes) -> str:
    """Be a process that wrote so much and died."""
    dead = Journal(directory)
    dead.open()
    for number, data in enumerate(files):
        if number:
            dead.rotate(b"")
        dead.write(data)
    dead.close(keeps_last=True)
    return dead.owner


def recover(directory) -> recovery.Recovered:
    return recovery.recover(directory, NO_PRICES, is_stopping=lambda: False)


def ends() -> dict[str, str]:
    return dict(RequestRow.objects.values_list("request_id", "end_reason"))


def lines(*entries: Any) -> bytes:
    return b"".join(map(journal.encode, entries))


def test_what_had_ended_and_what_had_only_begun(directory):
    leave(directory, lines(begun("a"), begun("b"), finished("a", status=404)))

    found = recover(directory)

    assert (found.finished, found.crashed, found.unreadable) == (1, 1, 0)
    assert ends() == {"a": "complete", "b": "crashed"}
    assert not list(directory.iterdir())


def test_an_end_in_a_later_file_counts(directory):
    leave(directory, lines(begun("a")), lines(begun("a"), finished("a")))

    recover(directory)

    assert ends() == {"a": "complete"}


def test_what_is_stored_already_is_not_stored_again(directory):
    for _ in range(2):
        leave(directory, lines(begun("a"), finished("a")))
    recover(directory)
    leave(directory, lines(begun("a"), finished("a"), begun("b")))
    recover(directory)

    assert ends() == {"a": "complete", "b": "crashed"}


def test_wherever_a_file_ends_nothing_whole_is_lost(directory):
    pieces = [
        journal.encode(entry)
        for entry in (
            begun("a"),
            begun("b"),
            finished("b", model_answered="dépôt 世界"),
            finished("a"),
        )
    ]
    data = b"".join(pieces)
    for end in range(len(data) + 1):
        RequestRow.objects.all().delete()
        leave(directory, data[:end])
        recover(directory)

        # A line is whole without its line end.
        whole = [sum(map(len, pieces[: number + 1])) - 1 <= end for number in range(4)]
        expected = {}
        if whole[0]:
            expected["a"] = "complete" if whole[3] else "crashed"
        if whole[1]:
            expected["b"] = "complete" if whole[2] else "crashed"
        assert ends() == expected, end


def test_lines_of_garbage_cost_only_themselves(directory):
    chance = random.Random(4)  # noqa: S311
    garbage = [
        b"{}",
        b"[" * 50_000,
        b'{"type": "finished"}',
        b'{"type":"begun","request_id":4}',
        b"\xff\x00",
        *(chance.randbytes(50).replace(b"\n", b"") for _ in range(20)),
    ]
    noise = b"\n".join(garbage) + b"\n\n\n"
    leave(directory, noise + lines(begun("a")) + noise + lines(finished("a")) + noise)

    found = recover(directory)

    assert ends() == {"a": "complete"}
    assert found.unreadable == 3 * len(garbage)


FAR = datetime.fromisoformat("0001-01-01T00:00:00+14:00")


@pytest.mark.parametrize(
    "strange",
    [
        finished("s", end_reason="nobody knows"),
        finished("s", started_at=FAR),
        begun("s", started_at=FAR),
    ],
    ids=["reason", "time", "time of a crash"],
)
def test_an_entry_that_makes_no_sense_holds_up_nobody(directory, strange):
    leave(directory, lines(strange, finished("a")))

    found = recover(directory)

    assert ends() == {"a": "complete"}
    assert found.refused == 1


def test_the_living_are_left_alone(directory):
    alive = Journal(directory)
    alive.open()
    alive.write(lines(begun("a")))

    assert recover(directory) == recovery.Recovered()
    assert ends() == {}
    alive.close()


def test_with_the_database_away_the_files_stay(directory, monkeypatch):
    leave(directory, lines(begun("a"), finished("a")))

    def away(*_: Any) -> None:
        raise OperationalError

    with monkeypatch.context() as patch:
        patch.setattr(store, "_insert", away)
        with pytest.raises(OperationalError):
            recover(directory)

    recover(directory)
    assert ends() == {"a": "complete"}


def test_a_worker_that_stops_leaves_the_rest_to_the_next(directory):
    leave(directory, lines(begun("a"), finished("a")))

    recovery.recover(directory, NO_PRICES, is_stopping=lambda: True)
    assert ends() == {}
    recover(directory)

    assert ends() == {"a": "complete"}


def test_many_lines_are_read_in_pieces(directory):
    leave(directory, lines(*(finished(f"r{number}") for number in range(1200))))

    assert recover(directory).finished == 1200
    assert RequestRow.objects.count() == 1200
