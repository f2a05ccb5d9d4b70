"""Many processes at once on one store: exactly as many get in as may."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from sessions_limit.backends.base import Entered, Obstacle, Refused
from tests.sessions_limit.racer import Racer
from tests.sessions_limit.stores import enter, session_id

pytestmark = pytest.mark.processes

PROCESSES = 4
CLIENTS = 200
PLACES = 3
ROUNDS = 20


@pytest.fixture(scope="module")
def racers(words: dict[str, str], tmp_path_factory: Any) -> Iterator[list[Racer]]:
    data_dir = tmp_path_factory.mktemp("racers")
    racers = [Racer(words, data_dir) for _ in range(PROCESSES)]
    yield racers
    for racer in racers:
        racer.close()


def order(scope: str, names: list[str], **fields: Any) -> dict[str, Any]:
    return {
        "scope": scope,
        "names": names,
        "limit": PLACES,
        "ttl_seconds": 300,
        "max_requests": 0,
        "workers": [],
        "die": False,
        **fields,
    }


def race(racers: list[Racer], scope: str, names: list[str], **fields: Any) -> Any:
    """Divide the names among the processes; return who got in and who did not."""
    for number, racer in enumerate(racers):
        racer.tell(**order(scope, names[number::PROCESSES], **fields))
    entered: list[str] = []
    refused: list[str] = []
    for racer in racers:
        fates = racer.answer()
        entered += fates.pop("entered", [])
        assert set(fates) <= {"full", "busy"}
        refused += [name for names in fates.values() for name in names]
    assert sorted(entered + refused) == sorted(names)
    return entered, refused


def test_as_many_as_may_get_in_and_one_more_for_each_that_has_to_go(backend, racers):
    names = [f"client-{number}" for number in range(CLIENTS)]
    for number in range(ROUNDS):
        scope = f"round:{number}"
        entered, waiting = race(racers, scope, names)
        assert len(entered) == PLACES

        assert backend.revoke(session_id(entered[0], scope))
        assert len(race(racers, scope, waiting[:20])[0]) == 1
        # Those who are in go on calling, whoever else knocks.
        again, _ = race(racers, scope, [*waiting[20:30], *entered[1:]])
        assert sorted(again) == sorted(entered[1:])


def test_a_session_has_exactly_as_many_requests_as_it_may(backend, racers):
    for number in range(ROUNDS):
        # Each request comes through a worker of its own.
        for turn, racer in enumerate(racers):
            workers = [f"w{turn}-{request}" for request in range(5)]
            racer.tell(
                **order(
                    f"busy:{number}",
                    ["a"] * len(workers),
                    workers=workers,
                    max_requests=7,
                )
            )
        fates = [racer.answer() for racer in racers]

        assert sum(len(fate.get("entered", [])) for fate in fates) == 7
        assert sum(len(fate.get("busy", [])) for fate in fates) == 5 * PROCESSES - 7


def test_the_places_of_a_process_that_was_killed_are_free_after_one_ttl(
    backend, words, tmp_path
):
    racer = Racer(words, tmp_path)
    racer.tell(**order("killed", ["a", "b", "c"], ttl_seconds=60, die=True))
    assert racer.process.wait(30) == -9
    racer.close()

    refused = enter(backend, "d", scope="killed")
    assert isinstance(refused, Refused)
    assert refused.why is Obstacle.FULL
    assert refused.wait <= timedelta(seconds=60)
    backend.offset = timedelta(seconds=60)
    assert enter(backend, "d", scope="killed") == Entered(0)
