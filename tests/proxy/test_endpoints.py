import pytest

from proxy import endpoints

MEBIBYTE = 1024**2


@pytest.mark.parametrize(
    ("path", "name", "methods", "limit_bytes", "is_conversation"),
    [
        (b"/v1/messages", "messages", ("POST",), 32 * MEBIBYTE, True),
        (
            b"/v1/messages/count_tokens",
            "count_tokens",
            ("POST",),
            32 * MEBIBYTE,
            True,
        ),
        (b"/v1/models", "models", ("GET",), MEBIBYTE, False),
        (b"/v1/models/claude-opus-5", "model", ("GET",), MEBIBYTE, False),
        (b"/v1/models/claude-3.5_x:y@20260101", "model", ("GET",), MEBIBYTE, False),
        (b"/v1/models/" + b"a" * 200, "model", ("GET",), MEBIBYTE, False),
    ],
)
def test_a_path_on_the_list_is_served(
    path, name, methods, limit_bytes, is_conversation
):
    endpoint = endpoints.find(path)

    assert endpoint is not None
    assert (endpoint.name, endpoint.methods) == (name, methods)
    assert endpoint.body_limit_bytes == limit_bytes
    assert endpoint.is_conversation is is_conversation


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/v1",
        b"/v1/",
        b"/v1/messages/",
        b"/v1/messages\n",
        b"/v1/messages\x00",
        b"/v1/messages%00",
        b"/v1/messages%20",
        b"/v1/messages?beta=true",
        b"/v1/messages;x=1",
        b"/V1/messages",
        b"/v1/Messages",
        b"//v1/messages",
        b"/v1//messages",
        b"/x/../v1/messages",
        b"/v1/./messages",
        b"/v1/messages/..",
        b"/v1/messages/../organizations",
        b"/v1%2fmessages",
        b"/v1/%6Dessages",
        b"/v1/messages%2Fcount_tokens",
        b"/v1/messages/batches",
        b"/v1/messages/count_tokens/more",
        b"/v1/models/",
        b"/v1/models/.",
        b"/v1/models/..",
        b"/v1/models/../organizations",
        b"/v1/models/%2e%2e",
        b"/v1/models/a/b",
        b"/v1/models/a%2Fb",
        b"/v1/models/a\\b",
        b"/v1/models/-a",
        b"/v1/models/\xc3\xa9",
        b"/v1/models/a b",
        b"/v1/models/a\n",
        b"/v1/models/" + b"a" * 201,
        b"/v1/models/" + b"a" * 100_000,
        b"/v1/organizations",
        b"/v1/organizations/me",
        b"/v1/oauth/token",
        b"/v1/complete",
        b"/v1/files",
        b"http://api.anthropic.com/v1/messages",
        b"\xff\xfe",
    ],
)
def test_any_other_path_is_not_served(path):
    assert endpoints.find(path) is None
