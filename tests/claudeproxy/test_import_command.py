"""`import_claude_proxy`: a data folder of the Go version, taken over."""

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from structlog.testing import capture_logs

from accounts.models import Account, AccountEvent
from accounts.status import AccountStatus
from clients import directory, importing, keys
from clients.errors import ClientKeyError
from clients.models import ClientKey, ClientKeyRole
from proxy import admission
from tests.factories import NOW, make_account, make_client_key

pytestmark = pytest.mark.django_db

GENERATED = "tk_" + "5eed" * 16


def account(name="ada", **fields):
    return {
        "id": f"id-of-{name}",
        "name": name,
        "organization_uuid": f"org-of-{name}",
        "access_token": f"planted-access-of-{name}",
        "refresh_token": f"planted-refresh-of-{name}",
        "expires_at": (timezone.now() + timedelta(hours=3)).isoformat(),
        "status": "active",
        "created_at": "2025-11-01T08:00:00+07:00",
        "updated_at": "2025-11-01T08:00:00+07:00",
    } | fields


def token(name="laptop", **fields):
    return {
        "id": f"id-of-{name}",
        "name": name,
        "key": f"planted_key_of_{name}_1a2b3c4d5e",
        "status": "active",
        "role": "user",
        "created_at": "2025-11-01T08:00:00Z",
        "updated_at": "2025-11-01T08:00:00Z",
        "usage_count": 7,
    } | fields


@pytest.fixture
def folder(tmp_path):
    """A data folder; `write` puts a file into it."""
    return tmp_path


def write(folder, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)


class Run:
    """Runs the command; returns standard output and exit code, keeps all it wrote."""

    err = seen = ""

    def __init__(self, caplog):
        self._caplog = caplog

    def __call__(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        with capture_logs() as lines:
            try:
                call_command(
                    "import_claude_proxy", *map(str, arguments), stdout=out, stderr=err
                )
            except SystemExit as end:
                code = end.code
            finally:
                self.err = err.getvalue()
                self.seen = f"{out.getvalue()}{self.err}{self._caplog.text}{lines}"
        return out.getvalue(), code


@pytest.fixture
def run(caplog):
    return Run(caplog)


def results(printed):
    return [(row["file"], row["row"], row["result"]) for row in json.loads(printed)]


# --- the command


def test_accounts_and_keys_of_a_folder_are_taken_over(folder, run):
    write(folder, "accounts.json", [account("ada"), account("grace")])
    write(folder, "tokens.json", [token("laptop")])
    printed, code = run(folder)

    assert code == 0
    assert set(Account.objects.values_list("name", flat=True)) == {"ada", "grace"}
    assert ClientKey.objects.get().name == "laptop"
    head, _, *lines = printed.splitlines()
    assert head.split() == ["file", "row", "kind", "name", "result", "note"]
    assert [line.split()[:2] for line in lines] == [
        ["accounts.json", "row"],
        ["accounts.json", "row"],
        ["tokens.json", "row"],
    ]


@pytest.mark.parametrize("option", [[], ["--json"], ["--dry-run"]])
def test_no_secret_is_printed_or_logged(folder, run, option):
    write(folder, "accounts.json", [account("ada"), account("b", status="planted")])
    write(folder, "tokens.json", [token("laptop"), token("b", role="planted")])
    run(folder, *option)

    assert "planted" not in run.seen


def test_the_text_of_a_key_is_kept_nowhere(folder, run):
    write(folder, "tokens.json", [token("laptop")])
    run(folder)

    assert "planted" not in repr(ClientKey.objects.values().get())
    assert "planted" not in repr(importing.parse(token("laptop")))


@pytest.mark.parametrize("key", [GENERATED, "sk_prod_chosen_by_hand_1a2b", "short"])
def test_a_client_goes_on_with_the_key_it_has(folder, run, key):
    write(folder, "tokens.json", [token("laptop", key=key)])
    run(folder)
    sent = admission.candidates([(b"authorization", b"Bearer " + key.encode())])
    known = admission.find(sent, directory.load(), timezone.now())

    assert known is not None
    assert known.name == "laptop"


@pytest.mark.parametrize(
    ("fields", "opens", "words"),
    [
        ({"status": "active"}, True, ""),
        ({"status": "inactive"}, False, "expired"),
        ({"status": "revoked"}, False, "revoked"),
    ],
)
def test_a_key_that_was_switched_off_stays_so(folder, run, fields, opens, words):
    write(folder, "tokens.json", [token("laptop", key=GENERATED, **fields)])
    run(folder)
    known = directory.load()

    assert (admission.find([GENERATED], known, timezone.now()) is not None) is opens
    assert words in str(admission.refusal([GENERATED], known, timezone.now()))


@pytest.mark.parametrize(("role", "expected"), [("admin", "admin"), ("", "user")])
def test_the_role_of_a_key_is_kept(folder, run, role, expected):
    write(folder, "tokens.json", [token("laptop", role=role)])
    run(folder)

    assert ClientKey.objects.get().role == expected


def test_keys_without_a_role_are_those_of_users():
    row = token("laptop")
    del row["role"]

    assert importing.parse(row).role == ClientKeyRole.USER


def test_a_key_that_can_be_guessed_is_taken_over_with_a_warning(folder, run):
    write(folder, "tokens.json", [token("laptop", key="letmein")])
    printed, code = run(folder)

    assert code == 0
    assert "replace it soon" in printed


def test_a_second_time_adds_nothing_and_is_no_failure(folder, run):
    write(folder, "accounts.json", [account("ada")])
    write(folder, "tokens.json", [token("laptop")])
    run(folder)
    before = (*Account.objects.values(), *ClientKey.objects.values())
    printed, code = run(folder, "--json")

    assert code == 0
    assert {result for _, _, result in results(printed)} == {"already there"}
    assert (*Account.objects.values(), *ClientKey.objects.values()) == before
    assert AccountEvent.objects.count() == 1


def test_a_dry_run_says_what_would_be_and_changes_nothing(folder, run):
    make_client_key("laptop")
    write(folder, "accounts.json", [account("ada"), account("ada"), account("x", id=7)])
    write(folder, "tokens.json", [token("laptop"), token("phone")])
    printed, code = run(folder, "--dry-run", "--json")

    assert code == 1
    assert [result for _, _, result in results(printed)] == [
        "would add",
        "already there",
        "skipped",
        "skipped",
        "would add",
    ]
    assert not Account.objects.exists()
    assert not AccountEvent.objects.exists()
    assert ClientKey.objects.get().name == "laptop"


def test_a_dry_run_foretells_what_the_run_does(folder, run):
    write(folder, "accounts.json", [account("ada"), account("b", status="x")])
    write(folder, "tokens.json", [token("laptop"), token("laptop")])
    foretold = results(run(folder, "--dry-run", "--json")[0])
    done = results(run(folder, "--json")[0])

    assert [(f, r, s.replace("would add", "added")) for f, r, s in foretold] == done


def test_a_bad_row_is_named_and_takes_no_other_with_it(folder, run):
    rows = [account("ada"), account("bad", expires_at="soon"), account("grace")]
    write(folder, "accounts.json", rows)
    printed, code = run(folder, "--json")
    bad = json.loads(printed)[1]

    assert code == 1
    assert set(Account.objects.values_list("name", flat=True)) == {"ada", "grace"}
    assert (bad["file"], bad["row"], bad["name"]) == ("accounts.json", "row 2", "bad")
    assert bad["result"] == "skipped"
    assert bad["note"].startswith("expires_at: this is no time")


def test_a_name_that_is_taken_skips_its_row_alone(folder, run):
    make_account("taken")
    write(folder, "accounts.json", [account("taken"), account("ada", status="invalid")])
    printed, code = run(folder)

    assert code == 1
    assert "another account is called 'taken'" in printed
    assert Account.objects.get(name="ada").status == AccountStatus.INVALID


def test_a_single_file_can_be_named(folder, run):
    write(folder, "accounts.json", [account("ada")])
    write(folder, "tokens.json", [token("laptop")])
    run(folder / "tokens.json")

    assert ClientKey.objects.exists()
    assert not Account.objects.exists()


def test_the_single_account_of_the_first_releases_is_taken_over(folder, run):
    only = account("ada", status="valid")
    del only["id"], only["name"]
    write(folder, "account.json", only)
    run(folder)

    assert Account.objects.get().name == "org-of-ada"


def test_of_two_account_files_the_newer_form_counts(folder, run):
    write(folder, "account.json", account("old"))
    write(folder, "accounts.json", [account("ada")])
    run(folder)

    assert Account.objects.get().name == "ada"
    assert "account.json is older than accounts.json" in run.err


def test_sessions_are_left_out_with_a_word(folder, run):
    write(folder, "sessions.json", [{"id": "s"}])
    write(folder, "tokens.json", [])
    printed, code = run(folder)

    assert code == 0
    assert "sessions.json is left out" in run.err
    assert printed == "There is nothing in it.\n"


def test_the_operator_is_told_to_stop_the_other_program(folder, run):
    write(folder, "accounts.json", [account("ada")])
    run(folder)

    assert "Stop the Go version" in run.err


def test_no_call_is_made(folder, run, claude, settings):
    settings.OAUTH_TOKEN_URL = f"{claude.url}/v1/oauth/token"
    write(folder, "accounts.json", [account("ada")])
    run(folder)

    assert list(claude.sandbox.log.after()) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "accounts.json",
            '[{"access_token": "planted',
            r"accounts\.json: this is no J",
        ),
        ("accounts.json", "7", r"accounts\.json: this is neither a list"),
        ("accounts.json", "[" * 100_000, r"accounts\.json: this is no JSON"),
        ("accounts.json", f"[{'7' * 5000}]", r"accounts\.json: .* number .* too long"),
        ("tokens.json", f"[{'7' * 5000}]", r"tokens\.json: .* number .* too long"),
        ("tokens.json", "{}", r"tokens\.json: this is no list of keys"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_before_anything_is_done(
    folder, run, name, content, words
):
    write(folder, "accounts.json", [account("ada")])
    write(folder, name, content)
    with pytest.raises(CommandError, match=words) as caught:
        run(folder)

    assert "planted" not in str(caught.value)
    assert not Account.objects.exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "neither accounts.json nor account.json nor tokens.json"),
        ("nothing", "are called accounts.json, account.json and tokens.json"),
        ("sessions.json", "are called accounts.json, account.json and tokens.json"),
        ("tokens.json", "cannot be read: No such file"),
    ],
)
def test_a_path_without_anything_to_take_over_is_named(folder, run, path, words):
    with pytest.raises(CommandError, match=words) as caught:
        run(folder / path)

    assert str(folder) in str(caught.value)


def test_a_home_that_nobody_has_is_named(run):
    with pytest.raises(CommandError, match="~nosuch/data: that user has no home"):
        run("~nosuch/data")


def test_a_byte_order_mark_does_not_count(folder, run):
    write(folder, "accounts.json", "\ufeff" + json.dumps([account("ada")]))
    write(folder, "tokens.json", "\ufeff" + json.dumps([token("laptop")]))
    _, code = run(folder)

    assert code == 0
    assert Account.objects.get().name == "ada"
    assert ClientKey.objects.get().name == "laptop"


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_an_id_that_comes_twice_is_skipped_with_the_reason(folder, run, option):
    rows = [account("ada"), account("grace", id="id-of-ada"), account("mary")]
    write(folder, "accounts.json", rows)
    for _again in range(2):
        printed, code = run(folder, "--json", *option)
        _, row, last = json.loads(printed)

        assert code == 1
        assert (row["name"], row["result"]) == ("grace", "skipped")
        assert row["note"].startswith("id: 'ada' was imported with the same one")
        assert last["result"] != "skipped"


def test_a_file_that_is_no_text_is_named(folder, run):
    (folder / "tokens.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="no text in UTF-8"):
        run(folder)


# --- client keys


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"key": ""}, "key"),
        ({"key": " "}, "key"),
        ({"key": 7}, "key"),
        ({"key": None}, "key"),
        ({"key": "planted key"}, "key"),
        ({"key": "planted-é"}, "key"),
        ({"key": "planted\nkey"}, "key"),
        ({"name": 7}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"role": "planted"}, "role"),
        ({"role": ["user"]}, "role"),
        ({"status": "planted"}, "status"),
    ],
)
def test_a_field_of_a_key_that_is_wrong_is_named_and_not_repeated(fields, field):
    with pytest.raises(ClientKeyError, match=f"^{field}: ") as caught:
        importing.parse(token(**{"key": GENERATED} | fields))

    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("row", [None, 7, "x", []])
def test_a_key_that_is_no_object_is_refused(row):
    with pytest.raises(ClientKeyError, match="no JSON object"):
        importing.parse(row)


def test_blanks_around_a_key_do_not_count():
    assert importing.parse(token(key=f" {GENERATED}\n")).digest == keys.digest(
        GENERATED
    )


def test_a_key_that_is_here_under_another_name_is_recognised():
    importing.store(importing.parse(token("laptop", key=GENERATED)), now=NOW)
    again = importing.parse(token("phone", key=GENERATED))

    assert importing.store(again, now=NOW) == (False, "as 'laptop'")


def test_a_name_of_another_key_is_refused():
    make_client_key("laptop")
    with pytest.raises(ClientKeyError, match="another client key is called 'laptop'"):
        importing.store(importing.parse(token("laptop")), now=NOW)

    assert ClientKey.objects.count() == 1
