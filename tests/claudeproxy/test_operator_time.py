"""What people read is in the operator's time zone, and what machines read is in UTC."""

import html
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account, AccountEvent
from claudeproxy.dashboard import usage_panel
from clients.models import ClientKey, ClientKeyRole
from tests.claudeproxy.test_admin import text
from tests.claudeproxy.test_settings import environment, read, start
from tests.factories import make_account, make_client_key
from tests.usage.cast import finished
from usage import pricing, rollups, rows, store
from usage.models import PriceRow, RequestRow

pytestmark = pytest.mark.django_db

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
# In Berlin the clock says half past two at both.
SUMMER = datetime(2026, 10, 25, 0, 30, 15, tzinfo=UTC)
WINTER = datetime(2026, 10, 25, 1, 30, 15, tzinfo=UTC)
INDEX = reverse("admin:index")
ADD_KEY = reverse("admin:clients_clientkey_add")
LOG = reverse("admin:usage_requestrow_changelist")
EVENTS = reverse("admin:accounts_accountevent_changelist")


@pytest.fixture
def berlin(settings: Any) -> None:
    settings.OPERATOR_TIME_ZONE = BERLIN


def serve(request_id: str = "req_a", at: datetime = SUMMER, **fields: Any) -> None:
    entry = finished(request_id, started_at=at, **fields)
    store.insert([rows.of_finished(entry, pricing.load())])


def page_of(thing: Any, page: str = "change") -> str:
    opts = thing._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_{page}", args=[thing.pk])


# --- pages


@pytest.mark.usefixtures("berlin")
def test_request_log_tells_the_hour_that_comes_twice_apart(
    admin_client: Client,
) -> None:
    serve("req_a", SUMMER)
    serve("req_b", WINTER)
    shown = text(admin_client.get(LOG))
    assert "02:30:15 2026-10-25 CEST" in shown
    assert "02:30:15 2026-10-25 CET" in shown


@pytest.mark.usefixtures("berlin")
def test_page_of_a_request_names_the_zone(admin_client: Client) -> None:
    serve()
    response = admin_client.get(page_of(RequestRow.objects.get()))
    assert "2026-10-25 02:30:15 CEST" in text(response)
    assert 'datetime="2026-10-25T02:30:15.' not in response.content.decode()
    assert 'datetime="2026-10-25T02:30:15+02:00"' in response.content.decode()


@pytest.mark.usefixtures("berlin")
def test_pages_of_accounts_name_the_zone(admin_client: Client) -> None:
    ada = make_account("ada")
    Account.objects.update(status_changed_at=SUMMER)
    AccountEvent.objects.create(
        account=ada, account_name="ada", to_status="active", actor="ada", at=WINTER
    )
    page = text(admin_client.get(page_of(ada)))
    assert "2026-10-25 02:30 CEST" in page
    assert "2026-10-25 02:30 CET" in page
    events = text(admin_client.get(reverse("admin:accounts_accountevent_changelist")))
    assert "2026-10-25 02:30 CET" in events


@pytest.mark.usefixtures("berlin")
def test_overview_names_the_zone_of_its_charts(admin_client: Client) -> None:
    serve(at=timezone.now())
    shown = text(admin_client.get(INDEX))
    assert "by the hour, in Europe/Berlin" in shown
    assert "hours, Europe/Berlin" in shown
    assert "UTC" not in shown
    days = text(admin_client.get(INDEX, {"range": "7d"}))
    assert "days, Europe/Berlin" in days


@pytest.mark.usefixtures("berlin")
def test_history_of_a_row_names_the_zone(
    admin_client: Client, admin_user: User
) -> None:
    ada = make_account("ada")
    entry = LogEntry.objects.log_actions(
        admin_user.pk, [ada], CHANGE, "renamed", single_object=True
    )
    # Not in the hour that comes twice: there Django leaves the zone out.
    LogEntry.objects.filter(pk=entry.pk).update(action_time=SUMMER - HOUR)
    assert "2026-10-25 01:30 CEST" in text(admin_client.get(page_of(ada, "history")))


@pytest.mark.usefixtures("berlin")
def test_page_of_a_user_names_the_zone_and_has_no_time_to_type(
    admin_client: Client, admin_user: User
) -> None:
    User.objects.update(date_joined=WINTER + HOUR)
    response = admin_client.get(page_of(admin_user))
    assert "2026-10-25 03:30 CET" in text(response)
    assert 'name="date_joined' not in response.content.decode()


def test_pages_are_in_utc_if_nothing_is_said(admin_client: Client) -> None:
    serve()
    assert "00:30:15 2026-10-25 UTC" in text(admin_client.get(LOG))
    page = text(admin_client.get(page_of(RequestRow.objects.get())))
    assert "2026-10-25 00:30:15 UTC" in page
    assert "In UTC." in text(admin_client.get(ADD_KEY))


@pytest.mark.usefixtures("berlin")
def test_a_request_is_priced_by_its_day_in_utc(admin_client: Client) -> None:
    PriceRow.objects.create(
        model="claude-opus-5-5",
        effective_from="2026-11-02",
        is_own=True,
        **dict.fromkeys(
            ("input", "output", "write_5m", "write_1h", "read", "web_search"),
            Decimal(99),
        ),
    )
    serve(at=datetime(2026, 11, 1, 23, 30, tzinfo=UTC))  # the 2nd in Berlin
    shown = text(admin_client.get(page_of(RequestRow.objects.get())))
    assert "per million" in shown
    assert "$99 per million" not in shown


# --- charts


def bars_of(zone: str, span: str, now: datetime) -> tuple[dict[str, str], str]:
    """The numbers below the chart of requests by their names, and the figure of all."""
    with timezone.override(ZoneInfo(zone)):
        root = User(username="root", is_superuser=True, is_active=True)
        panel = usage_panel.load(root, span=span, now=now)
    assert panel is not None
    chart = next(it for it in panel.charts if it.id == "requests")
    return {row.name: row.cells[-1] for row in chart.rows}, panel.tiles[0].exact


def serve_hourly(first: datetime, count: int) -> None:
    for number in range(count):
        serve(f"req_{number}", first + number * HOUR + timedelta(minutes=20))
    rollups.roll_up(seconds=5)


def test_the_hour_that_comes_twice_has_two_bars() -> None:
    serve_hourly(datetime(2026, 10, 24, 22, tzinfo=UTC), 6)
    shown, _ = bars_of("Europe/Berlin", "24h", datetime(2026, 10, 25, 4, tzinfo=UTC))
    assert len(shown) == 24
    assert [name for name, number in shown.items() if number == "1"] == [
        "2026-10-25 00:00 CEST",
        "2026-10-25 01:00 CEST",
        "2026-10-25 02:00 CEST",
        "2026-10-25 02:00 CET",
        "2026-10-25 03:00 CET",
        "2026-10-25 04:00 CET",
    ]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Asia/Kolkata", "2026-10-25", 24),
        ("Australia/Lord_Howe", "2026-04-05", 25),  # 24.5 on the clock
        ("Australia/Lord_Howe", "2026-10-04", 23),  # 23.5
        ("UTC", "2026-10-25", 24),
    ],
)
def test_a_bar_is_a_day_of_the_zone(zone: str, day: str, hours: int) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone))
    first = noon.astimezone(UTC).replace(minute=0) - 48 * HOUR
    serve_hourly(first, 96)
    shown, total = bars_of(zone, "7d", noon + timedelta(days=2))
    assert shown[day] == str(hours)
    assert sum(int(number) for number in shown.values()) == 96
    assert total == "96"


def test_the_last_hour_of_a_long_day_that_began_with_one_of_utc_is_seen() -> None:
    # Clocks in the Azores go back from UTC itself.
    serve_hourly(datetime(2026, 10, 25, tzinfo=UTC), 25)
    now = datetime(2026, 10, 26, 0, 30, tzinfo=UTC)
    shown, total = bars_of("Atlantic/Azores", "7d", now)
    assert (shown["2026-10-25"], total) == ("25", "25")


# --- what is typed and chosen


@pytest.mark.usefixtures("berlin")
def test_the_end_of_a_key_is_typed_in_the_zone(admin_client: Client) -> None:
    assert "In Europe/Berlin." in text(admin_client.get(ADD_KEY))
    asked = {"name": "alice", "role": "user", "expires_at": "2099-07-01T12:00"}
    admin_client.post(ADD_KEY, asked)
    key = ClientKey.objects.get()
    assert key.expires_at == datetime(2099, 7, 1, 10, tzinfo=UTC)
    assert "2099-07-01 12:00 CEST" in text(admin_client.get(page_of(key)))


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("at", ["2027-03-28T02:30", "2027-10-31T02:30"])
def test_an_end_that_never_comes_or_comes_twice_is_asked_for_again(
    admin_client: Client, at: str
) -> None:
    response = admin_client.post(
        ADD_KEY, {"name": "alice", "role": "user", "expires_at": at}
    )
    assert "it may be ambiguous or it may not exist" in html.unescape(text(response))
    assert not ClientKey.objects.exists()


def chosen_since(response: Any, name: str) -> dict[str, str]:
    """Where the links of a filter lead, by their words."""
    links = re.findall(
        r'<a href="(\?[^"]*)"[^>]*>\s*([^<]*?)\s*</a>', response.content.decode()
    )
    found = {}
    for address, words in links:
        query = parse_qs(urlsplit(html.unescape(address)).query)
        if f"{name}__gte" in query:
            found[words] = query[f"{name}__gte"][0]
    return found


@pytest.mark.usefixtures("berlin")
@time_machine.travel(SUMMER, tick=False)
def test_today_begins_at_midnight_in_the_zone(admin_client: Client) -> None:
    midnight = datetime(2026, 10, 25, tzinfo=BERLIN)
    serve("req_before", midnight - timedelta(minutes=1))
    serve("req_today", midnight)
    since = chosen_since(admin_client.get(LOG), "started_at")
    assert since["Today"] == str(midnight)
    assert since["Past 7 days"] == str(midnight - timedelta(days=7))
    response = admin_client.get(LOG, {"started_at__gte": since["Today"]})
    found = [row.request_id for row in response.context["cl"].result_list]
    assert found == ["req_today"]


@pytest.mark.parametrize(("page", "name"), [(LOG, "started_at"), (EVENTS, "at")])
@time_machine.travel(datetime(2026, 11, 1, 5, 30, tzinfo=UTC), tick=False)
def test_today_begins_with_the_first_midnight_of_two(
    settings: Any, admin_client: Client, page: str, name: str
) -> None:
    settings.OPERATOR_TIME_ZONE = ZoneInfo("America/Havana")
    make_account("ada")
    since = chosen_since(admin_client.get(page), name)
    assert since["Today"] == "2026-11-01 00:00:00-04:00"


@pytest.mark.usefixtures("berlin")
@time_machine.travel(SUMMER, tick=False)
def test_today_among_events_begins_at_midnight_in_the_zone(
    admin_client: Client,
) -> None:
    make_account("ada")
    midnight = datetime(2026, 10, 25, tzinfo=BERLIN)
    assert chosen_since(admin_client.get(EVENTS), "at")["Today"] == str(midnight)


# --- machines


def answers(api: Client) -> list[Any]:
    """What the REST API says of fixed times, without what differs by the second."""
    ever = {"from": "2026-10-24", "to": "2026-10-26"}
    paths: tuple[tuple[str, dict[str, str]], ...] = (
        ("/api/accounts", {}),
        ("/api/tokens", {}),
        ("/api/usage", {**ever, "group_by": "day"}),
        ("/api/usage", {**ever, "group_by": "hour"}),
        ("/api/usage/requests", ever),
        ("/api/schema/", {}),
    )
    found = []
    for path, asked in paths:
        response = api.get(path, asked)
        assert response.status_code == 200, path
        found.append(response.content)
    return found


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata"])
def test_the_rest_api_is_the_same_in_every_zone(
    settings: Any, admin_client: Client, zone: str
) -> None:
    make_account("ada")
    serve("req_a", SUMMER - timedelta(hours=1))
    serve("req_b", SUMMER)
    rollups.roll_up(seconds=5)
    key = make_client_key("root", ClientKeyRole.ADMIN).key.reveal()
    by_key = Client(headers={"x-api-key": key})
    expected = answers(by_key), answers(admin_client)
    assert b"2026-10-24" in expected[0][2]
    assert b"2026-10-25" in expected[0][2]
    settings.OPERATOR_TIME_ZONE = ZoneInfo(zone)
    admin_client.get(INDEX)  # which leaves nothing behind
    assert (answers(by_key), answers(admin_client)) == expected


@pytest.mark.usefixtures("berlin")
def test_a_time_sent_to_the_rest_api_without_an_offset_is_utc() -> None:
    key = make_client_key("root", ClientKeyRole.ADMIN).key.reveal()
    asked = {"name": "alice", "role": "user", "expires_at": "2099-07-01T12:00:00"}
    response = Client(headers={"x-api-key": key}).post(
        "/api/tokens", asked, content_type="application/json"
    )
    assert response.status_code == 201
    alice = ClientKey.objects.get(name="alice")
    assert alice.expires_at == datetime(2099, 7, 1, 12, tzinfo=UTC)


@pytest.mark.usefixtures("berlin")
def test_exports_stay_in_utc(tmp_path: Path, admin_client: Client) -> None:
    serve()
    admin_client.get(INDEX)
    file = tmp_path / "rows.json"
    call_command("export_usage", "--json", "--output", str(file), "--to", "2026-10-25")
    assert json.loads(file.read_text())["started_at"].startswith("2026-10-25T00:30:15")
    assert "Z" in json.loads(file.read_text())["started_at"]


def test_django_itself_and_the_clock_of_jobs_stay_in_utc(tmp_path: Path) -> None:
    code = """
import json, os, time, django
os.environ["DJANGO_SETTINGS_MODULE"] = "claudeproxy.settings"
django.setup()
from django.conf import settings
from django.utils import timezone
from django_q.conf import Conf
print(json.dumps([str(settings.OPERATOR_TIME_ZONE), settings.TIME_ZONE, time.tzname[0],
    str(timezone.get_current_timezone()), Conf.TIME_ZONE]))
"""
    found = read(start(code, environment(tmp_path, TIME_ZONE="Asia/Kolkata")))
    assert found == ["Asia/Kolkata", "UTC", "UTC", "UTC", "UTC"]


# --- and nothing is left behind


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("path", [INDEX, "/admin/nothing/", "/api/nothing", "/x"])
def test_the_zone_ends_with_the_page(admin_client: Client, path: str) -> None:
    admin_client.get(path)
    assert str(timezone.get_current_timezone()) == "UTC"


@pytest.mark.usefixtures("berlin")
@pytest.mark.django_db(transaction=True)
def test_pages_of_the_asynchronous_handler_are_in_the_zone(admin_user: User) -> None:
    serve()
    client = AsyncClient()
    client.force_login(admin_user)

    async def look() -> tuple[Any, str, bytes]:
        page = await client.get(page_of_request)
        zone = str(timezone.get_current_timezone())
        export: Any = await client.get("/api/usage/requests", ever)
        return page, zone, b"".join([part async for part in export])

    page_of_request = page_of(RequestRow.objects.get())
    ever = {"from": "2026-10-24", "to": "2026-10-26", "format": "csv"}
    page, zone, export = async_to_sync(look)()
    assert "2026-10-25 02:30:15 CEST" in text(page)
    assert zone == "UTC"
    assert b"2026-10-25T00:30:15" in export
