"""Client sessions, in front of an operator who watches them come and go."""

from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse
from playwright.sync_api import Page, expect

from claudeproxy.sandbox.server import SandboxServer
from clients.models import ClientKey
from sessions_limit.keys import SessionId
from tests.browser.accessibility import faults
from tests.browser.conftest import OpenPage
from tests.end_to_end import gateway as gateways
from tests.end_to_end.wire import Wire, ask, frames, parse, request
from tests.factories import make_account, make_client_key
from tests.sessions_limit import visits

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = reverse("admin:sessions_limit_clientsession_changelist")
PERIOD_MS = 30_000
MAKE_OPERATOR = (
    "from django.contrib.auth.models import User\n"
    "User.objects.create_superuser('ada', password='correct horse')"
)


@pytest.fixture
def watch(log_in: OpenPage) -> Callable[..., Page]:
    """Open the list in a window whose clock the test moves."""

    def window(**options: Any) -> Page:
        page = log_in(**options)
        page.clock.install()
        page.goto(LIST)
        return page

    return window


def pass_period(page: Page) -> None:
    with page.expect_response(page.url):
        page.clock.fast_forward(PERIOD_MS)
    expect(page.locator("[data-refresh-time]")).to_contain_text("Updated")


def visit(last: int, **fields: Any) -> SessionId:
    found = ClientKey.objects.filter(name="alice").first()
    key = found or make_client_key("alice").row
    return visits.visit(ip_address(f"192.0.2.{last}"), key=key, **fields)


def alive() -> list[str]:
    with visits.opened() as store:
        return sorted(one.client.ip for one in store.live() if one.is_alive)


def test_a_session_is_ended_by_its_button(log_in: OpenPage) -> None:
    visit(1, running=2)
    visit(2)
    page = log_in()
    page.get_by_role("region", name="Client sessions").get_by_role(
        "link", name="2 of 3 in the shared limit"
    ).click()
    page.get_by_role("button", name="End 192.0.2.1 of alice").click()
    expect(page.locator("#content")).to_contain_text("2 running requests will be cut")
    page.get_by_role("button", name="End 1 session").click()

    expect(page.locator(".messagelist")).to_contain_text("1 ended.")
    expect(page.get_by_role("row", name="192.0.2.1")).to_have_count(0)
    assert page.url.endswith("?state=alive&scope=shared")
    assert alive() == ["192.0.2.2"]


def test_ticked_sessions_are_blocked_and_let_in_again(log_in: OpenPage) -> None:
    visit(1)
    visit(2)
    page = log_in()
    page.goto(LIST)
    page.locator("#action-toggle").check()
    expect(page.locator(".action-counter")).to_contain_text("2 of 2")
    page.get_by_label("Action").select_option("end")
    page.get_by_role("button", name="Go").click()
    page.get_by_label("Block").select_option("own")
    page.get_by_role("button", name="End 2 sessions").click()
    expect(page.locator(".errorlist")).to_contain_text("Say for how long.")
    page.get_by_label("Another time").fill("2h30m")
    page.get_by_role("button", name="End 2 sessions").click()
    expect(page.locator(".messagelist")).to_contain_text(
        "2 ended; 2 blocked for 2h 30m."
    )
    assert alive() == []

    row = page.get_by_role("row", name="192.0.2.2")
    expect(row).to_contain_text("blocked")
    row.get_by_role("button", name="Unblock").click()
    expect(page.locator(".messagelist")).to_contain_text("1 unblocked.")
    expect(page.get_by_role("row", name="192.0.2.2")).to_have_count(0)
    expect(page.get_by_role("row", name="192.0.2.1")).to_be_visible()


def test_who_goes_back_has_ended_nothing(log_in: OpenPage) -> None:
    visit(1)
    page = log_in()
    page.goto(f"{LIST}?state=alive")
    page.get_by_role("button", name="End 192.0.2.1").click()
    page.get_by_role("link", name="Go back").click()

    expect(page.get_by_role("row", name="192.0.2.1")).to_be_visible()
    assert page.url.endswith("?state=alive")


def test_the_list_is_searched_and_filtered(log_in: OpenPage) -> None:
    visit(1)
    visit(2, user_agent="curl/8")
    page = log_in()
    page.goto(LIST)
    page.get_by_role("link", name="alive", exact=True).click()
    page.locator("#searchbar").fill("CURL")
    page.get_by_role("button", name="Search").click()

    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.get_by_role("row", name="192.0.2.2")).to_be_visible()
    page.get_by_role("link", name="Clear all filters").click()
    assert page.url.endswith(f"{LIST}?q=CURL")


def test_who_may_only_look_is_shown_no_button(open_page: Any) -> None:
    user = User.objects.create_user("victor", password="pw", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_clientsession"))
    visit(1)
    page: Page = open_page()
    page.goto(LIST)
    page.get_by_label("Username").fill("victor")
    page.get_by_label("Password").fill("pw")
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("row", name="192.0.2.1")).to_be_visible()
    expect(page.get_by_role("button", name="End")).to_have_count(0)
    expect(page.locator("input[type=checkbox]")).to_have_count(0)


def test_the_list_renews_itself(watch: Callable[..., Page]) -> None:
    page = watch()
    expect(page.locator("#content")).to_contain_text("No client is here")
    page.locator("#searchbar").fill("half a wo")
    visit(1)
    pass_period(page)
    expect(page.get_by_role("row", name="192.0.2.1")).to_contain_text("1 running")
    expect(page.locator("#searchbar")).to_have_value("half a wo")
    expect(page.locator("#searchbar")).to_be_focused()

    visit(2)
    pass_period(page)
    page.locator("#action-toggle").check()
    expect(page.locator(".action-counter")).to_contain_text("2 of 2")


def test_ticks_stay_while_others_come_and_go(watch: Callable[..., Page]) -> None:
    visit(1)
    page = watch()
    box = page.get_by_label("Select 192.0.2.1 of alice")
    box.check()
    visit(2)
    pass_period(page)
    expect(box).to_be_checked()
    expect(page.locator("[data-refresh-time]")).to_contain_text("where you are at work")

    box.uncheck()
    page.get_by_role("button", name="End 192.0.2.1").focus()
    pass_period(page)
    expect(page.get_by_role("row", name="192.0.2.2")).to_be_visible()
    expect(page.get_by_role("button", name="End 192.0.2.1")).to_be_focused()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_of_sessions_are_for_everybody(
    log_in: OpenPage, color_scheme: str, width: int
) -> None:
    make_account("an account with a rather long name")
    key = make_client_key("a client with a rather long name").row
    for last in range(3):
        visits.visit(
            ip_address(f"2001:db8:1234:567{last}::1"),
            key=key,
            user_agent=f"claude-cli/2.1.{last} (external, cli) " + "and-more/" * 9,
            requests=12_345,
            running=last,
            account_names=("an account with a rather long name", "gone"),
            ttl=timedelta(minutes=5 - last),
        )
    page = log_in(viewport={"width": width, "height": 844}, color_scheme=color_scheme)
    page.goto(LIST)
    page.get_by_role("button", name="End 2001:db8:1234:5670").click()
    page.get_by_label("Block").select_option("1h")
    page.get_by_role("button", name="End 1 session").click()
    expect(page.get_by_role("row", name="blocked")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faults(page) == []

    page.locator("#action-toggle").check()
    page.get_by_label("Action").select_option("end")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_role("heading", name="End sessions")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.processes
def test_a_client_that_is_ended_sees_its_stream_break_off(
    open_page: Any, claude: SandboxServer, tmp_path: Path
) -> None:
    claude.sandbox.script.add("*", {"hang": 6})
    template = gateways.furnish(tmp_path / "template", accounts=("ada",))
    with gateways.running(
        template, tmp_path / "running", upstream_url=claude.url
    ) as gateway:
        gateway.manage("shell", "--verbosity", "0", "--command", MAKE_OPERATOR)
        page: Page = open_page()
        page.goto(f"{gateway.url}{LIST}")
        page.get_by_label("Username").fill("ada")
        page.get_by_label("Password").fill("correct horse")
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#content")).to_contain_text("No client is here")

        with Wire(gateway.port) as wire:
            wire.send(
                request(
                    ask(stream=True),
                    key=gateway.key,
                    headers=[("user-agent", "claude-cli/2.1")],
                )
            )
            wire.receive_until(b"event: content_block_delta")
            page.reload()
            row = page.get_by_role("row", name="127.0.0.1 claude-cli/2.1")
            expect(row).to_contain_text("1 running")
            row.get_by_role("button", name="End 127.0.0.1 of ana").click()
            page.get_by_role("button", name="End 1 session").click()
            expect(page.locator(".messagelist")).to_contain_text("1 ended.")
            answer = parse(wire.rest())

        last = frames(answer.body)[-1]
        assert last.startswith(b"event: error\n")
        assert b"operator of this gateway ended this session" in last
