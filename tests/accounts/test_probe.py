import httpx
import pytest

from accounts import probe
from accounts.status import AccountKind
from claudeproxy.crypto import Secret
from tests.factories import make_account

KEY = Secret("sk-ant-x")


def check(answer, kind=AccountKind.API_KEY):
    """Check against an upstream that is a function; return it and what it was sent."""
    requests = []

    def upstream(request):
        requests.append(request)
        return answer(request) if callable(answer) else answer

    finding = probe.check_credential(kind, KEY, transport=httpx.MockTransport(upstream))
    return finding, requests


MODELS = httpx.Response(200, json={"data": [{"id": "a"}, {"id": "b"}]})


def error(status, message="no"):
    return httpx.Response(
        status, json={"type": "error", "error": {"type": "x", "message": message}}
    )


def test_a_credential_that_works_says_how_many_models_it_has():
    finding, _ = check(MODELS)

    assert (finding.works, finding.refused) == (True, False)
    assert finding.message == "works, 2 models"


def test_one_free_request_is_sent(settings):
    settings.UPSTREAM_BASE_URL = "https://claude.test/prefix"
    _, (request,) = check(MODELS)

    assert request.method == "GET"
    assert request.url.path == "/prefix/v1/models"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.content == b""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (AccountKind.API_KEY, {"x-api-key": "sk-ant-x"}),
        (
            AccountKind.OAUTH,
            {
                "authorization": "Bearer sk-ant-x",
                "anthropic-beta": "oauth-2025-04-20",
            },
        ),
    ],
)
def test_each_kind_shows_its_credential_in_its_own_way(kind, expected):
    _, (request,) = check(MODELS, kind)
    names = ("x-api-key", "authorization", "anthropic-beta")

    assert {n: request.headers[n] for n in names if n in request.headers} == expected


@pytest.mark.parametrize(
    ("answer", "refused", "words"),
    [
        (error(401, "invalid x-api-key"), True, "401: invalid x-api-key"),
        (error(403, "not allowed"), True, "403: not allowed"),
        (error(429, "slow down"), False, "429: slow down"),
        (error(529, "overloaded"), False, "529: overloaded"),
        (httpx.Response(500), False, "answered 500"),
        (httpx.Response(502, html="<p>bad gateway"), False, "answered 502"),
        (httpx.Response(403, html="<p>blocked"), True, "answered 403"),
        (httpx.Response(401, json={"error": "no"}), True, "answered 401"),
        (httpx.Response(401, json=[]), True, "answered 401"),
        (httpx.Response(302, headers={"location": "/x"}), False, "answered 302"),
        (httpx.Response(404), False, "answered 404"),
        (error(401, "x" * 1000), True, "x" * 200),
        (httpx.Response(200, html="<p>hello"), False, "no model list"),
        (httpx.Response(200, content=b"\xff"), False, "no model list"),
        (httpx.Response(200, json={"data": {}}), False, "no model list"),
        (httpx.Response(200, json=None), False, "no model list"),
    ],
)
def test_a_credential_that_does_not_work_says_why(answer, refused, words):
    finding, _ = check(answer)

    assert not finding.works
    assert finding.refused is refused
    assert words in finding.message
    assert len(finding.message) < 300


@pytest.mark.parametrize(
    "cls",
    [
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ReadTimeout,
        httpx.ReadError,
        httpx.RemoteProtocolError,
    ],
)
def test_an_upstream_that_cannot_be_asked_has_refused_nothing(settings, cls):
    settings.UPSTREAM_BASE_URL = "https://claude.test"

    def fail(request):
        raise cls("sk-ant-x in the error")

    finding, _ = check(fail)

    assert (finding.works, finding.refused) == (False, False)
    assert "https://claude.test could not be asked" in finding.message
    assert cls.__name__ in finding.message
    assert "sk-ant-x" not in finding.message


def test_a_redirect_is_not_followed():
    _, requests = check(httpx.Response(302, headers={"location": "https://evil.test"}))

    assert len(requests) == 1


@pytest.mark.django_db
def test_a_stored_account_is_checked_with_its_own_credential(claude):
    ada = make_account("ada", secret="sk-sandbox-ada")
    nobody = make_account("nobody", secret="sk-ant-nobody")

    assert probe.check(ada).works
    assert probe.check(nobody).refused
