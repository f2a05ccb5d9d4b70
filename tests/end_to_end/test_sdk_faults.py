"""Whatever goes wrong upstream, every SDK gets all of an answer or a typed error."""

import functools
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end import node, sdks
from tests.end_to_end.faults import (
    HANGS,
    LASTING,
    PASSING,
    STREAM,
    WHOLE,
    Breaks,
    Fault,
    Raises,
    Result,
)
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.sdks import Call, Got
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, request

pytestmark = pytest.mark.processes

# Short, because pauses that would outlast it are not made at all.
SETTINGS: dict[str, Any] = {
    "RETRY_BASE_DELAY": "0s",
    "RETRY_JITTER_MAX": "0s",
    "RETRY_GATE_SECONDS": "1m",
    "REQUEST_TIMEOUT": "6s",
    "RATE_LIMIT_DEFAULT": "1h",
}
SESSION = "x-claude-code-session-id"
LANGUAGES = 3


@pytest.fixture(scope="module")
def callers() -> Iterator[dict[str, Call]]:
    """The SDKs that this machine can run."""
    pythons: dict[str, Call] = {
        "Python": sdks.python,
        "async Python": sdks.async_python,
    }
    if not node.is_there():
        yield pythons
        return
    with node.running() as process:
        yield pythons | {"TypeScript": sdks.typescript(process)}


@pytest.fixture(scope="module")
def shared(
    template: Furnished,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    with gateways.running(
        template,
        tmp_path_factory.mktemp("faults"),
        upstream_url=sandbox_server.url,
        **SETTINGS,
    ) as gateway:
        yield gateway


def say(gateway: Gateway, session: str) -> None:
    """Send something of a session that must be answered."""
    headers = [(SESSION, session)]
    answer = exchange(gateway.port, request(ask(), key=gateway.key, headers=headers))
    assert answer.status == 200, answer.body


def calm(gateway: Gateway, sandbox: Sandbox) -> None:
    """Let every account answer once: trouble of before is over then."""
    missing = {"ada", "grace", "edsger"}

    def all_have_answered() -> bool:
        before = sandbox.log.last_seq
        say(gateway, str(uuid.uuid4()))
        missing.difference_update(e.account for e in sandbox.log.after(before))
        return not missing

    until(all_have_answered, within_seconds=20)


@pytest.fixture
def gateway(shared: Gateway, sandbox: Sandbox) -> Gateway:
    """A gateway for what leaves no trace on any account."""
    calm(shared, sandbox)
    return shared


@pytest.fixture(scope="module")
def furnished(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[int], Furnished]:
    """Make a data directory with so many accounts, once for each number."""
    return functools.cache(
        lambda count: gateways.furnish(
            tmp_path_factory.mktemp("many"), accounts=numbered(count)
        )
    )


def numbered(count: int) -> tuple[str, ...]:
    return tuple(f"nr-{number}" for number in range(count))


@pytest.fixture
def own_gateway(
    fault: Fault,
    furnished: Callable[[int], Furnished],
    sandbox_server: SandboxServer,
    sandbox: Sandbox,
    tmp_path: Path,
) -> Iterator[Gateway]:
    """A gateway of the test's own: an account for each call, and some that stay well.

    Two, because no request is sent to more of them before it is given up; or one for
    each further call, if none is sent to more than one.
    """
    calls = LANGUAGES * len(fault.modes)
    count = calls + (calls if isinstance(fault.all_, Breaks) else 2)
    for name in numbered(count):
        sandbox.accounts.add(name, f"sk-sandbox-{name}")
    with gateways.running(
        furnished(count),
        tmp_path,
        upstream_url=sandbox_server.url,
        **SETTINGS,
    ) as gateway:
        yield gateway


def session_of(
    gateway: Gateway, sandbox: Sandbox, account: str | None
) -> tuple[str, str]:
    """Begin a session that belongs to the account, or to any; return both."""

    def begun() -> tuple[str, str] | None:
        session = str(uuid.uuid4())
        say(gateway, session)
        found = sandbox.log.after()[-1].account
        assert found
        return (session, found) if account is None or account == found else None

    return until(begun)


def check(got: Got, result: Result, gateway: Gateway, sandbox: Sandbox) -> None:
    if result == WHOLE:
        assert got.text, got
        return
    assert got.text is None, got
    assert "APIError" in got.classes
    assert got.request_id
    assert got.request_id not in {entry.request_id for entry in sandbox.log.after()}
    request_id = got.request_id
    until(lambda: request_id in gateway.log_text)
    if isinstance(result, Breaks):
        assert got.kind == result.kind, got
        return
    assert isinstance(result, Raises)
    assert (got.classes[0], got.status, got.kind) == (
        result.name,
        result.status,
        result.kind,
    ), got
    assert got.should_retry == result.should_retry, got
    if result.retry_after is None:
        assert got.retry_after is None, got
    else:
        assert got.retry_after
        # As long as it was said, less what has passed since.
        least = result.retry_after // 2 if result.retry_after > 60 else 1
        assert least <= int(got.retry_after) <= result.retry_after, got


def calls_for(
    fault: Fault, callers: dict[str, Call]
) -> Iterator[tuple[str, Callable[[Gateway, dict[str, str]], Got]]]:
    """Each call of each SDK that the fault is about, with its name."""
    for mode in fault.modes:
        for language, call in callers.items():
            yield f"{language} {mode}", _asking(call, is_stream=mode == STREAM)


def _asking(call: Call, *, is_stream: bool) -> Callable[[Gateway, dict[str, str]], Got]:
    """Ask something new with each call."""
    return lambda gateway, headers: call(
        gateway, ask(str(uuid.uuid4())), headers, is_stream
    )


def try_one(
    fault: Fault,
    gateway: Gateway,
    sandbox: Sandbox,
    callers: dict[str, Call],
    account: str | None,
) -> None:
    """Let each call meet the fault at the account its session belongs to."""
    for name, call in calls_for(fault, callers):
        session, sick = session_of(gateway, sandbox, account)
        sandbox.log.clear()
        sandbox.script.add(sick, fault.step | {"times": "forever"})
        got = call(gateway, {SESSION: session})
        sandbox.script.clear(sick)
        assert sandbox.log.after()[0].account == sick, name
        check(got, fault.one, gateway, sandbox)


def try_all(
    fault: Fault, gateway: Gateway, sandbox: Sandbox, callers: dict[str, Call]
) -> None:
    sandbox.log.clear()
    sandbox.script.add("*", fault.step | {"times": "forever"})
    for _, call in calls_for(fault, callers):
        check(call(gateway, {}), fault.all_, gateway, sandbox)
    sandbox.script.clear()


def rows(faults: Iterable[Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults, ids=lambda fault: fault.name)


def test_all_sdks_are_asked(callers: dict[str, Call]) -> None:
    if len(callers) < LANGUAGES:
        node.missing("node or npm is not installed")


@rows(PASSING)
def test_sdk_is_served_if_one_account_is_in_trouble(
    gateway: Gateway, sandbox: Sandbox, callers: dict[str, Call], fault: Fault
) -> None:
    try_one(fault, gateway, sandbox, callers, "ada")


@rows(PASSING)
def test_sdk_raises_its_class_if_all_accounts_are_in_trouble(
    gateway: Gateway, sandbox: Sandbox, callers: dict[str, Call], fault: Fault
) -> None:
    try_all(fault, gateway, sandbox, callers)


@rows(LASTING)
def test_sdk_is_served_while_accounts_are_lost_and_told_when_none_is_left(
    own_gateway: Gateway, sandbox: Sandbox, callers: dict[str, Call], fault: Fault
) -> None:
    try_one(fault, own_gateway, sandbox, callers, None)
    try_all(fault, own_gateway, sandbox, callers)


@rows(HANGS)
def test_sdk_is_told_of_a_silence_that_lasts_too_long(
    hasty_gateway: Gateway, sandbox: Sandbox, callers: dict[str, Call], fault: Fault
) -> None:
    try_one(fault, hasty_gateway, sandbox, callers, None)
    try_all(fault, hasty_gateway, sandbox, callers)
