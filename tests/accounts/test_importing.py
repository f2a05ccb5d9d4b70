from datetime import UTC, datetime, timedelta

import pytest

from accounts import importing, registration
from accounts.errors import AccountError
from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Cipher, Secret
from claudeproxy.secretfiles import new_fernet_key
from tests.factories import NOW, make_account

LATER = NOW + timedelta(hours=3)
ORGANIZATION = "7d1f6f4e-0000-4000-8000-00000000ada0"


def row(**fields):
    """An account as the last releases of the Go version wrote it."""
    return {
        "id": "0193a1b2-0000-7000-8000-000000000001",
        "name": "ada",
        "organization_uuid": ORGANIZATION,
        "access_token": "planted-access-of-ada",
        "refresh_token": "planted-refresh-of-ada",
        "expires_at": "2026-03-01T15:00:00Z",
        "status": "active",
        "created_at": "2025-11-01T08:00:00Z",
        "updated_at": "2025-11-02T08:00:00Z",
    } | fields


def parse(**fields):
    return importing.parse(row(**fields), now=NOW)


def store(**fields):
    return importing.store(parse(**fields), now=NOW)


# --- reading


def test_a_row_of_the_last_releases_is_read():
    found = parse()

    assert found.name == "ada"
    assert found.source == "0193a1b2-0000-7000-8000-000000000001"
    assert found.organization_uuid == ORGANIZATION
    assert found.tokens.access_token == Secret("planted-access-of-ada")
    assert found.tokens.refresh_token == Secret("planted-refresh-of-ada")
    assert found.tokens.expires_at == LATER
    assert (found.status, found.rate_limited_until) == (AccountStatus.ACTIVE, None)


def test_a_row_that_was_read_shows_no_token():
    assert "planted" not in repr(parse())


def test_a_list_is_split_into_numbered_rows():
    assert importing.rows([1, 2]) == [("row 1", 1), ("row 2", 2)]
    assert importing.rows([]) == []


def test_times_in_unix_seconds_are_read_as_earlier_releases_wrote_them():
    assert parse(expires_at=int(LATER.timestamp())).tokens.expires_at == LATER


def test_the_form_with_an_organization_for_each_account_is_read():
    document = {
        "org-ada": {
            "oauth_token": {
                "access_token": "planted-access",
                "refresh_token": "planted-refresh",
                "expires_at": int(LATER.timestamp()),
            },
            "status": "inactive",
        },
        "org-grace": {"oauth_token": {"access_token": "planted", "expires_at": 1}},
    }
    (label, ada), (_, grace) = importing.rows(document)
    found = importing.parse(ada, now=NOW)

    assert label == "row 1"
    assert (found.name, found.source) == ("org-ada", "org-ada")
    assert found.organization_uuid == "org-ada"
    assert found.status is AccountStatus.INACTIVE
    assert found.tokens.expires_at == LATER
    assert importing.parse(grace, now=NOW).status is AccountStatus.ACTIVE


def test_the_single_account_of_the_first_releases_is_read():
    document = {
        "organization_uuid": ORGANIZATION,
        "access_token": "planted-access",
        "refresh_token": "planted-refresh",
        "expires_at": int(LATER.timestamp()),
        "status": "valid",
        "created_at": 1_761_984_000,
        "updated_at": 1_761_984_000,
    }
    ((label, only),) = importing.rows(document)
    found = importing.parse(only, now=NOW)

    assert label == "row 1"
    assert (found.name, found.source) == (ORGANIZATION, ORGANIZATION)
    assert found.status is AccountStatus.ACTIVE


@pytest.mark.parametrize("end", [None, "", 0, "0001-01-01T00:00:00Z"])
def test_an_end_that_nobody_wrote_down_means_refresh_first(end):
    assert parse(expires_at=end).tokens.expires_at == NOW


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0001-01-01T07:00:00+07:00", None),
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01T19:00:00+07:00", NOW),
        ("2026-03-01T12:00:00.123456789Z", NOW.replace(microsecond=123_456)),
        (1_772_366_400, NOW),
        (1_772_366_400_000, NOW),
        (1_772_366_400.5, NOW.replace(microsecond=500_000)),
    ],
)
def test_a_time_is_read_in_every_notation(value, expected):
    assert importing.parse_time(value, "expires_at") == expected


@pytest.mark.parametrize(
    "value",
    ["soon", "2026-03-01T12:00:00", True, [], {}, 10**40, float("inf"), float("nan")],
)
def test_what_is_no_time_is_refused_by_field(value):
    with pytest.raises(AccountError, match=r"^rate_limited_until: this is no time"):
        importing.parse_time(value, "rate_limited_until")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": 7}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"access_token": ""}, "access_token"),
        ({"access_token": None}, "access_token"),
        ({"access_token": ["planted"]}, "access_token"),
        ({"access_token": "planted token"}, "access_token"),
        ({"refresh_token": "planted\ntoken"}, "refresh_token"),
        ({"expires_at": "planted"}, "expires_at"),
        ({"status": "planted"}, "status"),
        ({"status": ["active"]}, "status"),
        ({"organization_uuid": 7}, "organization_uuid"),
        ({"organization_uuid": "x" * 201}, "organization_uuid"),
        ({"id": {"planted": 1}}, "id"),
        ({"status": "rate_limited", "rate_limited_until": "x"}, "rate_limited_until"),
    ],
)
def test_a_field_that_is_wrong_is_named_and_not_repeated(fields, field):
    with pytest.raises(AccountError, match=f"^{field}: ") as caught:
        parse(**fields)

    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("document", [None, 7, "accounts"])
def test_a_document_that_holds_no_accounts_is_refused(document):
    with pytest.raises(AccountError, match="neither a list of accounts nor an object"):
        importing.rows(document)


@pytest.mark.parametrize("thing", [None, 7, "x", []])
def test_a_row_that_is_no_object_is_refused(thing):
    with pytest.raises(AccountError, match="no JSON object"):
        importing.parse(thing, now=NOW)


def test_a_token_set_is_read_behind_a_byte_order_mark():
    text = '\ufeff{"access_token": "a", "refresh_token": "b"}'

    assert importing.parse_token_set(text, now=NOW).access_token == Secret("a")


@pytest.mark.parametrize("digits", [4000, 5000])
def test_a_number_too_long_is_no_end_of_a_token(digits):
    text = f'{{"access_token": "a", "expires_at": {"7" * digits}}}'
    with pytest.raises(AccountError, match=r"^(expires_at|tokens): "):
        importing.parse_token_set(text, now=NOW)


# --- storing


@pytest.mark.django_db
class TestStore:
    def test_an_account_is_added_with_all_that_was_known(self):
        is_new, note = store()
        account = Account.objects.get()
        event = AccountEvent.objects.get()

        assert (is_new, note) == (True, "active")
        assert (account.name, account.kind) == ("ada", AccountKind.OAUTH)
        assert account.access_token == Secret("planted-access-of-ada")
        assert account.refresh_token == Secret("planted-refresh-of-ada")
        assert account.expires_at == LATER
        assert account.organization_uuid == ORGANIZATION
        assert event.actor == "import 0193a1b2-0000-7000-8000-000000000001"

    @pytest.mark.parametrize(
        ("fields", "status", "note"),
        [
            ({"status": "inactive"}, AccountStatus.INACTIVE, "inactive"),
            ({"status": "invalid"}, AccountStatus.INVALID, "has to sign in again"),
            ({"status": ""}, AccountStatus.ACTIVE, "active"),
            (
                {"status": "rate_limited", "rate_limited_until": LATER.isoformat()},
                AccountStatus.RATE_LIMITED,
                "rate_limited",
            ),
            (
                {"status": "rate_limited", "rate_limited_until": NOW.isoformat()},
                AccountStatus.ACTIVE,
                "its rate limit has ended",
            ),
            ({"status": "rate_limited"}, AccountStatus.ACTIVE, "rate limit has ended"),
            (
                {"status": "active", "rate_limited_until": LATER.isoformat()},
                AccountStatus.ACTIVE,
                "active",
            ),
        ],
    )
    def test_its_status_is_kept(self, fields, status, note):
        is_new, said = store(**fields)

        assert is_new
        assert note in said
        assert Account.objects.get().status == status

    def test_a_deadline_is_kept_and_the_move_is_in_its_history(self):
        store(status="rate_limited", rate_limited_until=LATER.isoformat())
        account = Account.objects.get()
        moves = account.events.order_by("pk").values_list("to_status", "reason")

        assert account.rate_limited_until == LATER
        assert list(moves) == [
            ("active", "added"),
            ("rate_limited", "imported as rate limited"),
        ]

    def test_an_account_without_a_refresh_token_is_taken_with_a_word(self):
        _, note = store(refresh_token="")

        assert Account.objects.get().refresh_token is None
        assert "without a refresh token" in note

    def test_a_second_time_changes_nothing(self):
        store()
        before = Account.objects.values().get()
        is_new, _ = store(access_token="planted-other", status="inactive")

        assert not is_new
        assert Account.objects.values().get() == before

    def test_an_account_that_was_renamed_and_refreshed_is_recognised(self):
        store()
        account = Account.objects.get()
        registration.rename(account, "lovelace")
        Account.objects.update(access_token=Secret("new"), refresh_token=Secret("new"))

        assert store() == (False, "as 'lovelace'")
        assert Account.objects.get().access_token == Secret("new")

    def test_another_account_with_the_same_id_is_refused(self):
        store()
        other = {"access_token": "x", "refresh_token": "y"}
        with pytest.raises(AccountError, match=r"^id: 'ada' was imported with"):
            store(name="grace", **other)

        assert Account.objects.get().name == "ada"

    def test_an_account_that_was_renamed_in_the_file_is_recognised(self):
        store()

        assert store(name="lovelace") == (False, "as 'ada'")

    @pytest.mark.parametrize("column", ["access_token", "refresh_token"])
    def test_tokens_that_were_added_by_hand_are_recognised(self, column):
        fields = {"access_token": Secret("a"), "refresh_token": Secret("b")}
        held = row()[column]
        account = make_account("by-hand", kind=AccountKind.OAUTH)
        Account.objects.filter(pk=account.pk).update(**fields | {column: Secret(held)})

        assert store() == (False, "as 'by-hand'")

    def test_an_account_that_was_deleted_can_be_imported_again(self):
        store()
        Account.objects.all().delete()

        assert store()[0]

    def test_a_name_of_another_account_is_refused(self):
        make_account("ada")
        with pytest.raises(AccountError, match="name: another account is called 'ada'"):
            store()

        assert Account.objects.count() == 1

    def test_two_accounts_of_one_organization_are_both_added(self):
        store()
        fields = {"id": "2", "access_token": "x", "refresh_token": "y"}

        assert store(name="grace", **fields)[0]

    def test_an_account_that_cannot_be_read_is_no_obstacle(self, monkeypatch):
        make_account("unreadable", kind=AccountKind.OAUTH)
        for name in ("access_token", "refresh_token"):
            field = Account._meta.get_field(name)
            monkeypatch.setattr(field, "cipher", Cipher([new_fernet_key()]))

        assert store()[0]

    def test_a_very_long_id_is_no_obstacle(self):
        assert store(id="x" * 200)[0]
        assert not store(id="x" * 200)[0]


def test_a_time_is_in_utc():
    at = importing.parse_time("2026-03-01T19:00:00+07:00", "expires_at")

    assert at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert at.tzinfo is UTC
