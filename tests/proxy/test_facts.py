import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import facts
from proxy.facts import RequestFacts

SESSION = "0b8a3f6e-6a0c-4d5f-9a55-2f1c7a0f4d11"


def read(body: Any, session_id: bytes | None = None, *, by_prefix: bool = True):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return facts.read(text, session_id=session_id, by_prefix=by_prefix)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("body", "model", "is_stream"),
    [
        ({"model": "claude-opus-5", "stream": True}, "claude-opus-5", True),
        ({"model": "claude-opus-5", "stream": False}, "claude-opus-5", False),
        ({"model": "claude-opus-5"}, "claude-opus-5", False),
        ({"model": "m", "stream": None, "metadata": None}, "m", False),
        ({"model": "m", "unheard_of": {"deep": [1, {}]}}, "m", False),
        ({"model": "modèle"}, "modèle", False),
        ({}, None, False),
    ],
)
def test_model_and_stream_are_read(body, model, is_stream):
    known = read(body)

    assert (known.model, known.is_stream) == (model, is_stream)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"model=claude",
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b'{"model": 5}',
        b'{"model": ["m"]}',
        b'{"model": "m", "stream": "yes"}',
        b'{"model": "m", "metadata": []}',
        b'{"model": "m", "metadata": {"user_id": 7}}',
    ],
)
def test_a_body_of_another_shape_yields_no_facts(body):
    assert read(body) == RequestFacts()


@pytest.mark.parametrize("opening", [b"[", b'{"messages":', b'{"system":['])
def test_deep_nesting_yields_no_conversation(opening):
    body = b'{"model": "m", "messages": [{"role": "user", "content": '
    known = read(body + opening * 200_000)

    assert known.conversation is None


def test_deep_nesting_that_is_closed_is_no_fault():
    content = b"[" * 100_000 + b"]" * 100_000
    body = b'{"model": "m", "messages": [{"role": "user", "content": %b}]}' % content

    assert read(body).conversation is None


@pytest.mark.parametrize(
    "message",
    [
        b'{"role": "user", "content": "\xff"}',
        b'{"role": "user", "content": [1e999, 123456789012345678901234567890]}',
        b'{"role": "user"}',
        b'{"role": 1, "content": []}',
        b"7",
        b"null",
    ],
)
def test_an_odd_first_message_does_not_hide_the_model(message):
    known = read(b'{"model": "m", "messages": [%b]}' % message)

    assert known.model == "m"


# --- which conversation


def test_the_session_header_names_the_conversation():
    one = read({"messages": [user("hi")]}, b"session-1")
    same = read({"messages": [user("something else")]}, b"session-1")
    other = read({"messages": [user("hi")]}, b"session-2")

    assert one.conversation == same.conversation
    assert one.conversation != other.conversation


def test_the_session_header_wins_over_the_metadata():
    body = {"metadata": {"user_id": json.dumps({"session_id": SESSION})}}

    assert read(body, b"header").conversation == read({}, b"header").conversation


@pytest.mark.parametrize("body", [{}, b"{", b'{"model": 5}'])
def test_the_session_header_counts_even_if_the_body_cannot_be_read(body):
    assert read(body, b"s").conversation == read({}, b"s").conversation is not None


@pytest.mark.parametrize("body", [{}, b"{"])
def test_an_empty_session_header_names_nothing(body):
    assert read(body, b"").conversation is None


@pytest.mark.parametrize(
    "user_id",
    [
        json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": SESSION}),
        json.dumps({"session_id": SESSION, "more": [1]}),
        f"user_{'a' * 64}_account__session_{SESSION}",
        f"user_x_account_5f0c1c1e_session_{SESSION}",
    ],
)
def test_the_session_in_the_metadata_names_the_conversation(user_id):
    body = {"metadata": {"user_id": user_id}, "messages": [user("hi")]}

    assert read(body).conversation == read({}, SESSION.encode()).conversation


@pytest.mark.parametrize(
    "user_id",
    ["", "alice", '{"session_id": 5}', '{"session_id": ""}', "{}", "[]", "_session_1"],
)
def test_metadata_without_a_session_leaves_the_prefix_to_tell(user_id):
    messages = [user("hi")]
    body = {"metadata": {"user_id": user_id}, "messages": messages}

    assert read(body).conversation == read({"messages": messages}).conversation


def turn(count: int, *, system: str = "be kind") -> dict[str, Any]:
    """A conversation as it is sent again each time, the newest message marked."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "a reminder in between"}
    ]
    for number in range(count):
        messages.append(user([{"type": "text", "text": f"question {number}"}]))
        if number < count - 1:
            messages.append({"role": "assistant", "content": f"answer {number}"})
    messages[-1]["content"][0]["cache_control"] = {"type": "ephemeral"}
    return {
        "model": "m",
        "system": [{"type": "text", "text": system}],
        "tools": [{"name": "ls"}],
        "messages": messages,
    }


def test_a_conversation_stays_the_same_over_its_turns():
    digests = {read(turn(count)).conversation for count in range(1, 6)}

    assert len(digests) == 1
    assert None not in digests


def test_a_leading_system_message_does_not_tell_conversations_apart():
    body = turn(1)
    body["messages"][0]["content"] = "another reminder"

    assert read(body).conversation == read(turn(1)).conversation


@pytest.mark.parametrize("field", ["system", "tools", "first message"])
def test_conversations_differ_by_each_part_of_their_prefix(field):
    body = turn(1)
    if field == "first message":
        body["messages"][1]["content"][0]["text"] = "another question"
    else:
        body[field] = [{"type": "text", "text": "another"}]

    assert read(body).conversation != read(turn(1)).conversation


def test_parts_of_the_prefix_do_not_run_into_each_other():
    one = read({"system": "ab", "messages": [user("c")]})
    other = read({"system": "a", "messages": [user("bc")]})

    assert one.conversation != other.conversation


@pytest.mark.parametrize(
    "body", [{}, {"messages": []}, {"messages": [{"role": "assistant"}]}]
)
def test_without_a_user_message_there_is_no_conversation(body):
    assert read(body).conversation is None


def test_the_prefix_is_only_read_when_asked_for():
    assert read(turn(1), by_prefix=False) == RequestFacts(model="m")


@given(body=st.binary(max_size=200), session=st.none() | st.binary(max_size=20))
def test_no_bytes_make_the_reading_fail(body, session):
    facts.read(body, session_id=session, by_prefix=True)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "user_id", "session_id", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
bodies = st.dictionaries(
    st.sampled_from(["model", "stream", "metadata", "system", "tools", "messages"]),
    values
    | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": values})),
)


@given(body=bodies, broken=st.binary(max_size=2), at=st.integers(0, 400))
def test_no_json_makes_the_reading_fail(body, broken, at):
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")

    facts.read(text, session_id=None, by_prefix=True)
    facts.read(text[:at] + broken + text[at:], session_id=None, by_prefix=True)


@given(text=st.text(max_size=4), other=st.text(max_size=4))
def test_the_prefix_digest_is_as_distinct_as_the_first_message(text, other):
    one = read({"messages": [user(text)]})
    two = read({"messages": [user(other)]})

    assert (one.conversation == two.conversation) is (text == other)


@pytest.mark.parametrize("size", [10, 64 * 1024, 200_000])
def test_the_mark_for_caching_does_not_count_whatever_the_size(size):
    block = {"type": "text", "text": "x" * size}
    marked = {**block, "cache_control": {"type": "ephemeral"}}
    one = read({"messages": [user([marked])]})
    two = read({"messages": [user([block])]})

    assert one.conversation == two.conversation


def test_large_first_messages_are_told_apart():
    one = read({"messages": [user([{"type": "text", "text": "a" + "x" * 200_000}])]})
    two = read({"messages": [user([{"type": "text", "text": "b" + "x" * 200_000}])]})

    assert one.conversation != two.conversation


def named(body, **rest):
    known = facts.read(
        json.dumps(body | rest).encode(), session_id=None, by_prefix=False
    )
    return known.object_ids, known.thread


BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("fields", "object_ids"),
    [
        ({}, ()),
        ({"container": None}, ()),
        ({"container": "container_1"}, ("container_1",)),
        ({"container": {"id": "container_1"}}, ("container_1",)),
        (
            {"container": {"id": None, "skills": [{"skill_id": "skill_1"}]}},
            ("skill_1",),
        ),
        (
            {
                "container": {
                    "skills": [
                        {"type": "anthropic", "skill_id": "xlsx"},
                        {"type": "custom", "skill_id": "skill_1"},
                        {"type": ["odd"], "skill_id": "skill_2"},
                    ]
                }
            },
            ("skill_1", "skill_2"),
        ),
        ({"container": 7}, ()),
        ({"container": [1]}, ()),
        ({"x": {"file_id": "file_1"}}, ("file_1",)),
        ({"x": [{"file_id": "b"}, {"file_id": "a"}, {"file_id": "b"}]}, ("b", "a")),
        ({"x": '{"file_id": "file_1"}'}, ()),
        ({"x": {"file_id": "no id/"}}, ()),
        ({"x": {"file_ids": "file_1"}}, ()),
    ],
)
def test_what_a_request_names_is_read(fields, object_ids):
    assert named(BODY, **fields) == (object_ids, None)


@pytest.mark.parametrize(
    ("thread", "previous", "is_threaded"),
    [
        ({"type": "continue", "previous_message_id": "msg_1"}, "msg_1", True),
        ({"type": "create"}, None, True),
        (None, None, False),
        ("create", None, False),
        ({"previous_message_id": 1}, None, False),
    ],
)
def test_a_thread_is_read(thread, previous, is_threaded):
    known = facts.read(
        json.dumps(BODY | {"thread": thread}).encode(), session_id=None, by_prefix=False
    )

    assert (known.thread, known.is_threaded) == (previous, is_threaded)
    assert known.model == "m"


@pytest.mark.parametrize(
    ("fields", "may_show"),
    [
        ({}, False),
        ({"tools": [{"type": "custom", "name": "code_execution"}]}, False),
        ({"tools": [{"type": "code_execution_20250825", "name": "x"}]}, True),
        ({"container": "container_1"}, True),
        ({"thread": {"type": "create"}}, True),
    ],
)
def test_an_answer_is_read_only_if_it_may_show_something(fields, may_show):
    known = facts.read(
        json.dumps(BODY | fields).encode(), session_id=None, by_prefix=False
    )

    assert known.may_show is may_show


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"file_id": "file_1"}', [b"file_1"]),
        (b'{"file_id"\n :\t"file_1"}', [b"file_1"]),
        (b'{"skill_id":"skill_1","container":"container_1"}', None),
        (b'{"container":{"id":"container_1"}}', [b"container_1"]),
        (b'{"id":"toolu_1"}', []),
        (b'{"text":"\\"file_id\\":\\"file_1\\""}', []),
        (b'{"file_id": "' + b"a" * 201 + b'"}', []),
    ],
)
def test_references_are_found_in_bytes(body, found):
    expected = [b"skill_1", b"container_1"] if found is None else found

    assert facts.REFERENCE.findall(body) == expected
