import json
from datetime import timedelta

import pytest

from accounts.ownership import CONTAINER_LIFETIME, THREAD_LIFETIME, Possession
from accounts.status import ObjectKind
from proxy import sightings
from tests.factories import NOW

SKILL, THREAD, CONTAINER = ObjectKind.SKILL, ObjectKind.THREAD, ObjectKind.CONTAINER
SOON = NOW + timedelta(minutes=20)
SHOWN = {"id": "container_1", "expires_at": SOON.isoformat(), "skills": None}


def in_message(message, *, is_thread=True):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return sightings.in_message(body, 7, NOW, is_thread=is_thread)


def frame(name: str, **data) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


@pytest.mark.parametrize(
    ("source", "is_shared"),
    [
        ("anthropic", True),
        ({"type": "anthropic_example"}, True),
        ("custom", False),
        ({"type": "custom"}, False),
        (None, False),
        ([], False),
    ],
)
def test_what_every_account_has_belongs_to_none(source, is_shared):
    found = sightings.read_object(json.dumps({"id": "s1", "source": source}).encode())

    assert found is not None
    assert found.is_shared is is_shared
    expected = None if is_shared else Possession("s1", SKILL, 7)
    assert found.possession(SKILL, 7) == expected


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"id": 1}', b"\xff", b"[" * 9999])
def test_what_is_no_object_shows_nothing(raw):
    assert sightings.read_object(raw) is None
    assert in_message(raw) == []


@pytest.mark.parametrize("object_id", ["", "../x", "a" * 201, "a b"])
def test_an_id_that_is_none_is_not_remembered(object_id):
    assert sightings.Sighting(object_id).possession(SKILL, 7) is None
    assert in_message({"id": object_id, "container": {"id": object_id}}) == []


def test_an_answer_shows_its_thread_and_its_container():
    assert in_message({"id": "msg_1", "container": SHOWN}) == [
        Possession("msg_1", THREAD, 7, NOW + THREAD_LIFETIME),
        Possession("container_1", CONTAINER, 7, SOON),
    ]


def test_an_answer_is_a_thread_only_if_one_was_asked_for():
    assert in_message({"id": "msg_1", "container": None}, is_thread=False) == []


@pytest.mark.parametrize("expires_at", [None, "2026-03-01T12:00:00"])
def test_a_container_without_a_clear_end_has_the_longest(expires_at):
    shown = {"id": "container_1", "expires_at": expires_at}
    (found,) = in_message({"container": shown})

    assert found.expires_at == NOW + CONTAINER_LIFETIME


def test_a_stream_shows_the_same_in_its_frames():
    frames = (
        frame("message_start", message={"id": "msg_1", "container": None})
        + frame("ping")
        + frame("content_block_delta", delta={"text": '"container"'})
        + frame("message_delta", delta={"container": SHOWN})
    )
    found = sightings.in_frames(frames, 7, NOW, is_thread=True)

    assert [(p.object_id, p.kind) for p in found] == [
        ("msg_1", THREAD),
        ("container_1", CONTAINER),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_frames_are_read_whatever_ends_their_lines(end):
    frames = frame("message_start", message={"id": "msg_1"})
    frames = frames.replace(b"\n", end.encode())

    assert sightings.in_frames(frames, 7, NOW, is_thread=True)


@pytest.mark.parametrize("at", [None, 1_700_000_000, "soon", "", {}, "2026-13-01"])
def test_an_object_is_known_whatever_its_time_is(at):
    found = sightings.read_object(json.dumps({"id": "b1", "created_at": at}).encode())

    assert found is not None
    assert (found.id, found.created_at) == ("b1", None)
