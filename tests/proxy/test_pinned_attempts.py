"""Attempts that only one account can make, and those that must not be made twice."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from accounts.status import AccountKind, AccountStatus
from claudeproxy.errors import ClaudeProxyError
from clients.directory import KnownKey
from proxy import endpoints, selection
from proxy.asks import Ask, Pin
from proxy.attempts import Attempts
from proxy.errors import AllLimitedError, ThreadNotFoundError
from proxy.facts import RequestFacts
from proxy.refresher import Refresher
from proxy.retry import Policy
from proxy.spool import FileBody
from tests.proxy.test_attempts import EAGER, MODEL, Case, saying

KEY = KnownKey(1, "ana", "user", None, is_revoked=False)
HOME = selection.choose_home(
    Case(saying()).gateway.snapshot.contents.accounts,
    key_id=KEY.id,
    cursor=0,
    now=datetime.now(UTC),
).account


def ask(path: bytes, **fields) -> Ask:
    endpoint = endpoints.find(path)
    assert endpoint is not None
    return Ask(endpoint, KEY, RequestFacts(model=MODEL), b"{}", **fields)


def message(pin: Pin) -> Ask:
    return ask(b"/v1/messages", pin=pin)


def by_id(pin: Pin) -> Ask:
    return replace(ask(b"/v1/files/file_1", pin=pin), facts=RequestFacts())


async def run(case: Case, asked: Ask) -> int | ClaudeProxyError:
    request = case.request()
    async with request.resources:
        try:
            return (await Attempts(request, asked).run()).reply.status
        except ClaudeProxyError as refused:
            return refused


def move(case: Case, account_id: int, status: AccountStatus, until=None) -> None:
    contents = case.gateway.snapshot.contents
    case.gateway.snapshot.contents = replace(
        contents,
        accounts=tuple(
            replace(each, status=status, rate_limited_until=until)
            if each.id == account_id
            else each
            for each in contents.accounts
        ),
    )


@pytest.mark.parametrize("of", [message, by_id])
@pytest.mark.parametrize("kind", ["ok", "down", "overloaded", "burst", "cut"])
async def test_only_the_owner_is_asked_and_again_where_that_helps(of, kind):
    case = Case(saying(kind))
    result = await run(case, of(Pin(2, "file_1")))

    assert set(case.asked) == {2}
    if kind != "burst" or of is message:
        assert result == 200


async def test_the_owners_last_answer_is_the_callers():
    case = Case(lambda _: "down")

    assert await run(case, message(Pin(2, "file_1"))) == 500
    assert case.asked == [2] * EAGER.max_attempts


async def test_a_pin_uses_up_nobodys_turn():
    case = Case(saying())
    await run(case, message(Pin(2, "file_1")))

    assert case.gateway.cursor == 0


@pytest.mark.parametrize("status", [AccountStatus.INACTIVE, AccountStatus.INVALID])
@pytest.mark.parametrize("of", [message, by_id])
async def test_an_owner_who_is_not_in_use_is_spoken_of_but_not_named(of, status):
    case = Case(saying())
    move(case, 2, status)
    result = await run(case, of(Pin(2, "file_1")))

    assert isinstance(result, ClaudeProxyError)
    assert (result.http_status, case.asked) == (503, [])
    assert "file_1" in str(result)
    assert "not in use" in str(result)
    assert result.should_retry is False
    assert "account-2" not in str(result)


async def test_a_limited_owner_is_told_with_the_time():
    case = Case(saying())
    until = datetime.now(UTC) + timedelta(minutes=9)
    move(case, 2, AccountStatus.RATE_LIMITED, until)
    result = await run(case, message(Pin(2, "file_1")))

    assert isinstance(result, AllLimitedError)
    assert "file_1" in str(result)
    assert result.retry_after
    assert timedelta(minutes=8) < result.retry_after <= timedelta(minutes=9)
    assert await run(case, by_id(Pin(2, "file_1"))) == 200


@pytest.mark.parametrize("status", list(AccountStatus)[1:])
async def test_a_thread_whose_account_is_away_is_not_found(status):
    case = Case(saying())
    until = datetime.now(UTC) + timedelta(minutes=9)
    move(case, 2, status, until if status == AccountStatus.RATE_LIMITED else None)
    result = await run(case, message(Pin(2, "msg_1", is_thread=True)))

    assert isinstance(result, ThreadNotFoundError)
    assert (result.http_status, result.error_type) == (404, "not_found_error")
    assert result.details == {"error_code": "thread_not_found"}


@pytest.mark.parametrize("name", ["file_1/content", "file_1"])
async def test_only_a_download_is_handed_on_unread(name):
    case = Case(saying())
    request = case.request()
    async with request.resources:
        asked = ask(f"/v1/files/{name}".encode(), pin=Pin(2, "file_1"))
        served = await Attempts(request, asked).run()
        is_unread = served.rest is not None and not served.start

    assert is_unread is name.endswith("content")


async def test_what_a_key_makes_is_made_at_its_home():
    case = Case(saying())
    assert HOME is not None
    for _ in range(3):
        assert await run(case, ask(b"/v1/files", is_making=True)) == 200

    assert case.asked == [HOME.id] * 3


@pytest.mark.parametrize("kind", ["down", "overloaded", "burst"])
async def test_making_that_was_refused_is_tried_elsewhere(kind):
    case = Case(saying(kind))

    assert await run(case, ask(b"/v1/files", is_making=True)) == 200
    assert len(set(case.asked)) == 2


@pytest.mark.parametrize("kind", ["gateway timeout", "page of an edge"])
async def test_making_that_something_in_between_gave_up_on_is_not_repeated(kind):
    case = Case(saying(kind))
    result = await run(case, ask(b"/v1/files", is_making=True))

    assert isinstance(result, ClaudeProxyError)
    assert (result.http_status, result.should_retry) == (503, False)
    assert len(case.asked) == 1


@pytest.mark.parametrize("pin", [None, Pin(2, "file_1")])
async def test_making_that_may_have_happened_is_not_repeated(pin):
    case = Case(saying("cut"))
    result = await run(case, ask(b"/v1/files", is_making=True, pin=pin))

    assert isinstance(result, ClaudeProxyError)
    assert (result.http_status, result.should_retry) == (503, False)
    assert len(case.asked) == 1


async def test_making_that_takes_too_long_may_have_happened(settings):
    settings.REQUEST_TIMEOUT = timedelta(milliseconds=50)
    case = Case(lambda _: "silent")
    result = await run(case, ask(b"/v1/files", is_making=True))

    assert isinstance(result, ClaudeProxyError)
    assert (result.http_status, result.should_retry) == (503, False)


class SignedIn(Case):
    """Accounts whose tokens can be renewed, which is counted."""

    def __init__(self, say) -> None:
        super().__init__(say)
        self.renewals = 0
        contents = self.gateway.snapshot.contents
        until = datetime.now(UTC) + timedelta(hours=8)
        self.gateway.snapshot.contents = replace(
            contents,
            accounts=tuple(
                replace(each, kind=AccountKind.OAUTH, expires_at=until)
                for each in contents.accounts
            ),
        )
        case = self

        class Renewing(Refresher):
            async def replace(self, account):
                case.renewals += 1
                return account

        self.gateway.refresher = Renewing(self.gateway.snapshot)
        self.written: list[object] = []
        setattr(self.gateway, "_write", self.written.append)  # noqa: B010  # a method

    async def _answer(self, request):
        token = request.headers["authorization"].removeprefix("Bearer ")
        request.headers["x-api-key"] = token
        return await super()._answer(request)


async def test_a_sign_in_that_is_not_good_for_a_path_stays_in_use():
    case = SignedIn(lambda _: "refused")
    for _ in range(3):
        assert await run(case, by_id(Pin(2, "file_1"))) == 401

    assert case.renewals == 1
    assert case.asked == [2] * 4
    assert case.why_not(2) is None
    assert case.written == []


async def test_a_sign_in_that_is_refused_messages_is_refused():
    case = SignedIn(lambda _: "refused")
    result = await run(case, message(Pin(2, "file_1")))

    assert isinstance(result, ClaudeProxyError)
    assert case.why_not(2) is not None
    assert len(case.written) == 1


async def test_without_retries_a_limited_owner_is_still_told_of_as_one():
    case = Case(saying("burst"), Policy(is_enabled=False))
    result = await run(case, by_id(Pin(2, "file_1")))

    assert isinstance(result, AllLimitedError)
    assert "file_1" in str(result)


async def test_a_large_upload_may_take_as_long_as_its_line_does(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    settings.REQUEST_TIMEOUT = timedelta(seconds=300)
    body = FileBody()
    await body.append(b"x" * 1024**2)
    attempts = Attempts(Case(saying()).request(), ask(b"/v1/files", is_making=True))
    in_memory = attempts._remaining
    attempts.ask = replace(attempts.ask, body=body)

    assert timedelta(seconds=3.9) < attempts._remaining - in_memory
    body.close()
