"""Pages that renew themselves, in front of people who are doing something in them."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage
from playwright.sync_api import Page, expect

from accounts import lifecycle
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from tests.browser.accessibility import faults
from tests.browser.conftest import OpenPage
from tests.factories import make_account, make_client_key

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PERIOD_MS = 30_000


@pytest.fixture
def watch(log_in: OpenPage) -> Callable[..., Page]:
    """Open a page whose clock the test moves."""

    def window(address: str = reverse("admin:index"), **options: Any) -> Page:
        page = log_in(**options)
        page.clock.install()
        page.goto(address)
        return page

    return window


def pass_period(page: Page) -> None:
    with page.expect_response(page.url):
        page.clock.fast_forward(PERIOD_MS)
    expect(page.locator("[data-refresh-time]")).to_contain_text("Updated")


def queue(name: str) -> None:
    payload = SignedPackage.dumps(
        {"id": name, "name": name, "func": "math.sqrt", "args": (2,), "kwargs": {}}
    )
    OrmQ.objects.create(key="tests", payload=payload, lock=timezone.now())


def invalidate(account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(
        status=AccountStatus.INVALID, status_reason="its key was refused"
    )


def test_the_overview_follows_the_database(watch: Callable[..., Page]) -> None:
    ada = make_account("ada")
    page = watch()
    expect(page.locator(".health")).to_contain_text("degraded")
    invalidate(ada)
    make_client_key("alice")
    pass_period(page)
    expect(page.locator(".health")).to_contain_text("unhealthy")
    notices = page.get_by_role("region", name="Needs attention")
    expect(notices).to_contain_text("its key was refused")
    expect(page.get_by_role("region", name="Client keys")).to_contain_text("1 valid")
    assert re.fullmatch(
        r"Updated \d\d:\d\d:\d\d UTC", page.locator("[data-refresh-time]").inner_text()
    )


def test_an_update_is_told_in_the_operators_time_zone(
    watch: Callable[..., Page], settings: Any
) -> None:
    settings.OPERATOR_TIME_ZONE = ZoneInfo("Asia/Kolkata")
    # Somebody on a journey: the browser's own zone does not matter.
    page = watch(timezone_id="America/New_York")
    pass_period(page)
    told = page.locator("[data-refresh-time]").inner_text()
    match = re.fullmatch(r"Updated (\d\d:\d\d):\d\d IST", told)
    assert match
    now = timezone.now().astimezone(ZoneInfo("Asia/Kolkata"))
    assert match[1] in {f"{now - timedelta(minutes=it):%H:%M}" for it in (0, 1)}


def test_a_button_that_came_with_an_update_works(watch: Callable[..., Page]) -> None:
    account = make_account("ada")
    page = watch()
    lifecycle.deactivate(account, actor="upkeep", reason="idle", now=timezone.now())
    pass_period(page)
    page.get_by_role("button", name="Activate again ada").click()
    expect(page.locator(".messagelist")).to_contain_text("1 moved")


def test_focus_stays_on_the_same_thing_wherever_it_went(
    watch: Callable[..., Page],
) -> None:
    make_account("grace")
    page = watch()
    page.get_by_role("link", name="grace").focus()
    make_account("ada", status=AccountStatus.INVALID)
    pass_period(page)
    expect(page.get_by_role("row", name="ada")).to_be_visible()
    expect(page.get_by_role("link", name="grace")).to_be_focused()


def test_focus_on_what_is_gone_goes_to_no_neighbour(
    watch: Callable[..., Page],
) -> None:
    for name in ("ada", "grace"):
        lifecycle.deactivate(
            make_account(name), actor="upkeep", reason="idle", now=timezone.now()
        )
    page = watch()
    page.get_by_role("button", name="Activate again ada").focus()
    ada = Account.objects.get(name="ada")
    lifecycle.activate(ada, actor="edsger", reason="", now=timezone.now())
    pass_period(page)
    expect(page.get_by_role("button", name="Activate again ada")).to_have_count(0)
    expect(page.locator("[data-refresh=state]")).to_be_focused()


def test_a_scrolled_table_stays_where_it_is(watch: Callable[..., Page]) -> None:
    make_account("ada")
    page = watch(viewport={"width": 390, "height": 844})
    table = page.get_by_role("region", name="Table of accounts")
    table.evaluate("element => element.scrollLeft = 90")
    make_account("grace")
    pass_period(page)
    expect(page.get_by_role("row", name="grace")).to_be_visible()
    assert table.evaluate("element => element.scrollLeft") == 90


def test_typed_text_is_kept(watch: Callable[..., Page]) -> None:
    make_account("ada")
    page = watch()
    page.evaluate(
        """() => document.querySelector("[data-refresh=accounts]")
            .insertAdjacentHTML("beforeend", '<input aria-label="Note">')"""
    )
    note = page.get_by_label("Note")
    note.fill("half a sent")
    note.blur()
    make_account("grace")
    pass_period(page)
    expect(note).to_have_value("half a sent")
    expect(page.locator("[data-refresh-time]")).to_contain_text("where you are at work")

    note.fill("")
    pass_period(page)
    expect(note).to_be_focused()
    note.blur()
    pass_period(page)
    expect(page.get_by_role("row", name="grace")).to_be_visible()


def test_selected_text_stays_selected(watch: Callable[..., Page]) -> None:
    make_account("ada", status=AccountStatus.INVALID, status_reason="it was refused")
    page = watch()
    page.evaluate(
        """() => getSelection().selectAllChildren(
            document.querySelector("[data-refresh=accounts] td:nth-child(3)"))"""
    )
    make_account("grace")
    pass_period(page)
    assert page.evaluate("getSelection().toString()") == "it was refused"


def test_ticked_rows_are_left_alone_and_others_are_renewed(
    watch: Callable[..., Page],
) -> None:
    queue("first")
    page = watch(reverse("admin:django_q_ormq_changelist"))
    box = page.locator("tr input.action-select")
    box.check()
    queue("second")
    pass_period(page)
    expect(box).to_have_count(1)
    expect(box).to_be_checked()

    box.uncheck()
    pass_period(page)
    expect(box).to_have_count(2)
    expect(page.locator("[data-refresh=pages]")).to_contain_text("2 ")


def test_actions_work_on_rows_that_came_with_an_update(
    watch: Callable[..., Page],
) -> None:
    queue("first")
    page = watch(reverse("admin:django_q_ormq_changelist"))
    for name in ("second", "third"):
        queue(name)
        pass_period(page)
    expect(page.locator("tr input.action-select")).to_have_count(3)
    page.locator("#action-toggle").check()
    expect(page.locator("tr input.action-select:checked")).to_have_count(3)
    expect(page.locator(".action-counter")).to_contain_text("3 of 3")
    page.locator("select[name=action]").select_option("delete_selected")
    page.get_by_role("button", name="Go").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator(".messagelist")).to_contain_text("3")
    assert not OrmQ.objects.exists()


def test_a_message_that_came_with_an_update_is_shown(
    watch: Callable[..., Page],
) -> None:
    account = make_account(kind=AccountKind.API_KEY)
    page = watch()
    # Another tab acts, and this one is the first to ask for a page.
    page.evaluate(
        """async (address) => {
            const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
            const body = new URLSearchParams({csrfmiddlewaretoken: token});
            await fetch(address, {method: "POST", body, redirect: "manual"});
        }""",
        reverse("admin:accounts_account_deactivate", args=[account.pk]),
    )
    pass_period(page)
    expect(page.locator(".messagelist")).to_contain_text("1 moved")
    pass_period(page)
    expect(page.locator(".messagelist")).to_contain_text("1 moved")


def test_updates_can_be_paused_and_stay_so(watch: Callable[..., Page]) -> None:
    make_account("ada")
    page = watch()
    page.get_by_role("button", name="Pause updates").click()
    expect(page.locator("[data-refresh-time]")).to_have_text("Paused")
    page.reload()
    pause = page.get_by_role("button", name="Pause updates", pressed=True)
    expect(pause).to_be_visible()
    make_account("grace")
    page.clock.fast_forward(3 * PERIOD_MS)
    expect(page.get_by_role("row", name="grace")).to_have_count(0)

    pause.click()
    expect(page.get_by_role("row", name="grace")).to_be_visible()


def test_a_hidden_page_asks_for_nothing_until_it_is_seen(
    watch: Callable[..., Page],
) -> None:
    page = watch()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    show = """(hidden) => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(show, True)
    page.clock.fast_forward(4 * PERIOD_MS)
    assert page.url not in asked
    with page.expect_response(page.url):
        page.evaluate(show, False)
        page.clock.fast_forward(1)


def test_trouble_is_told_once_and_is_over_when_it_is(
    watch: Callable[..., Page],
) -> None:
    page = watch()
    trouble = page.locator("[data-refresh-trouble]")
    page.evaluate(
        """() => {
            window.changes = 0;
            new MutationObserver(() => window.changes++).observe(
                document.querySelector("[data-refresh-trouble]"), {childList: true});
            window.reallyFetch = window.fetch;
            window.tries = 0;
            window.fetch = async () => { window.tries++; throw TypeError(); };
        }"""
    )
    for tries in (1, 2):
        page.clock.fast_forward(PERIOD_MS)
        page.wait_for_function("count => window.tries === count", arg=tries)
        expect(trouble).to_contain_text("does not answer")
    assert page.evaluate("window.changes") == 1
    page.evaluate("() => { window.fetch = window.reallyFetch; }")
    pass_period(page)
    expect(trouble).to_have_text("")


def test_it_says_that_the_login_has_ended(watch: Callable[..., Page]) -> None:
    make_account("ada")
    page = watch()
    Session.objects.all().delete()
    page.clock.fast_forward(PERIOD_MS)
    expect(page.locator("[data-refresh-trouble]")).to_contain_text("login has ended")
    expect(page.get_by_role("row", name="ada")).to_be_visible()


def test_without_scripts_the_overview_is_a_page(log_in: OpenPage) -> None:
    make_account("ada")
    page = log_in(java_script_enabled=False)
    expect(page.get_by_role("row", name="ada")).to_be_visible()
    expect(page.locator("[data-refresh-bar]")).to_be_hidden()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault_with_pages_that_renew_themselves(
    watch: Callable[..., Page], color_scheme: str, width: int
) -> None:
    make_account("ada", status=AccountStatus.INVALID, status_reason="it was refused")
    limited_until = timezone.now() + timedelta(hours=1)
    make_account(
        "grace",
        status=AccountStatus.RATE_LIMITED,
        rate_limited_until=limited_until,
    )
    queue("first")
    page = watch(viewport={"width": width, "height": 844}, color_scheme=color_scheme)
    pass_period(page)
    assert faults(page) == []
    page.goto(reverse("admin:django_q_ormq_changelist"))
    assert faults(page) == []
