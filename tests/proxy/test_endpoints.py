import pytest

from accounts.status import ObjectKind
from proxy import endpoints
from proxy.endpoints import ENDPOINTS

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
    ("path", "name", "methods", "limit_mebibytes", "traits"),
    [
        (b"/v1/messages/batches", "batches", "GET POST", 256, "all makes"),
        (b"/v1/messages/batches/b", "batch", "GET DELETE", 32, ""),
        (b"/v1/messages/batches/b/cancel", "batch_cancel", "POST", 32, ""),
        (b"/v1/messages/batches/b/results", "batch_results", "GET", 32, "download"),
        (b"/v1/files", "files", "GET POST", 500, "all makes"),
        (b"/v1/files/f", "file", "GET DELETE", 32, ""),
        (b"/v1/files/f/content", "file_content", "GET", 32, "download"),
        (b"/v1/skills", "skills", "GET POST", 32, "all makes"),
        (b"/v1/skills/s", "skill", "GET DELETE", 32, ""),
        (b"/v1/skills/s/versions", "skill_versions", "GET POST", 32, "makes"),
        (b"/v1/skills/s/versions/1", "skill_version", "GET DELETE", 32, ""),
        (
            *(b"/v1/skills/s/versions/1/content", "skill_content", "GET"),
            *(32, "download"),
        ),
    ],
)
def test_what_belongs_to_an_account_has_its_paths(
    path, name, methods, limit_mebibytes, traits
):
    endpoint = endpoints.find(path)

    assert endpoint is not None
    assert (endpoint.name, " ".join(endpoint.methods)) == (name, methods)
    assert endpoint.body_limit_bytes == limit_mebibytes * MEBIBYTE
    assert endpoint.has_own_limits
    assert endpoint.is_collection is ("all" in traits)
    assert endpoint.makes is ("makes" in traits)
    assert endpoint.is_download is ("download" in traits)


@pytest.mark.parametrize("path", [b"/v1/skills/s1", b"/v1/skills/s1/versions/2"])
def test_the_first_id_of_a_path_names_the_object(path):
    endpoint = endpoints.find(path)

    assert endpoint is not None
    assert endpoint.object_id(path) == "s1"


@pytest.mark.parametrize("kind", ["batch", "file", "skill"])
def test_every_kind_that_is_listed_has_a_path_for_one_object(kind):
    endpoint, path = endpoints.of_object(ObjectKind(kind), "x_1")

    assert endpoints.find(path) is endpoint
    assert endpoint.object_id(path) == "x_1"


@pytest.mark.parametrize("text", ["", "..", "a/b", "a?b", "a\n", "-a", "a" * 201, "é"])
def test_what_is_no_id_becomes_no_path(text):
    assert not endpoints.is_object_id(text)
    with pytest.raises(ValueError, match="no id"):
        endpoints.of_object(ObjectKind.FILE, text)


def test_who_asks_for_another_path_is_told_of_all_there_are():
    assert all(endpoint.template in endpoints.served() for endpoint in ENDPOINTS)


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
        b"/v1/messages/batches/",
        b"/v1/messages/batches/..",
        b"/v1/messages/batches/../files",
        b"/v1/messages/batches/a/b",
        b"/v1/messages/batches/a/results/more",
        b"/v1/messages/batches/a%2Fresults",
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
        b"/v1/files/",
        b"/v1/files/.",
        b"/v1/files/-a",
        b"/v1/files/a/",
        b"/v1/files/a/contents",
        b"/v1/files/" + b"a" * 201,
        b"/v1/skills/a/versions/..",
        b"/v1/skills/a/versions/1/contents",
        b"/v1/skills/a/version",
        b"/v1/user_profiles",
        b"/v1/agents",
        b"/v1/sessions",
        b"http://api.anthropic.com/v1/messages",
        b"\xff\xfe",
    ],
)
def test_any_other_path_is_not_served(path):
    assert endpoints.find(path) is None
