import copy
import json
import logging
import pickle
import traceback
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from cryptography.fernet import Fernet
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.forms.models import model_to_dict

from accounts.models import Account
from claudeproxy.crypto import (
    Cipher,
    EncryptedField,
    SealedSecret,
    Secret,
    WrongEncryptionKeyError,
)
from tests.factories import make_account

PLAIN = "sk-ant-planted-secret"
KEYS = [Fernet.generate_key().decode() for _ in range(2)]


@pytest.fixture(params=["plain", "sealed", "opened"])
def secret(request):
    if request.param == "plain":
        return Secret(PLAIN)
    cipher = Cipher(KEYS)
    sealed = SealedSecret(cipher.encrypt(PLAIN), cipher)
    if request.param == "opened":
        sealed.reveal()
    return sealed


# --- a secret in memory


def test_a_secret_is_revealed_on_demand(secret):
    assert secret.reveal() == PLAIN


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        ascii,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r}",
        lambda secret: "%s and %r" % (secret, secret),  # noqa: UP031  # as logging does
        lambda secret: "{} {0!r}".replace("{}", "{0}").format(secret),
        lambda secret: str({"key": [secret]}),
        lambda secret: json.dumps({"key": secret}, default=str),
        lambda secret: json.dumps({"key": secret}, default=repr),
        lambda secret: msgspec.json.encode([secret], enc_hook=repr).decode(),
        lambda secret: logging.makeLogRecord(
            {"msg": "%r", "args": (secret,)}
        ).getMessage(),
    ],
)
def test_a_secret_shows_itself_to_nobody(secret, show):
    assert PLAIN not in show(secret)
    assert "[secret]" in show(secret)


@pytest.mark.parametrize(
    "take_away",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        lambda secret: json.dumps(secret, cls=DjangoJSONEncoder),
        msgspec.json.encode,
        msgspec.msgpack.encode,
        lambda secret: pickle.dumps({"key": secret}),
        lambda secret: copy.deepcopy([secret]),
        iter,
        len,
        bytes,
        vars,
        lambda secret: "".join([secret]),
        lambda secret: "sk-" + secret,
        lambda secret: format(secret, ">40"),
    ],
)
def test_a_secret_cannot_be_taken_away(secret, take_away):
    with pytest.raises(TypeError) as caught:
        take_away(secret)

    assert PLAIN not in str(caught.value)


def test_a_traceback_does_not_show_a_secret(secret):
    try:
        raise ValueError(secret)
    except ValueError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)

    # `self` of the fixture stands in no frame, so all locals are ours.
    assert PLAIN not in "".join(shown.format())


def test_equal_secrets_are_equal_and_hash_alike(secret):
    assert secret == Secret(PLAIN)
    assert secret != Secret("another")
    assert secret != PLAIN
    assert {secret, Secret(PLAIN)} == {secret}


# --- encryption


def test_what_was_encrypted_is_decrypted():
    cipher = Cipher(KEYS)

    assert cipher.decrypt(cipher.encrypt("é")) == "é"


def test_the_same_text_never_looks_the_same_twice():
    cipher = Cipher(KEYS)

    assert cipher.encrypt(PLAIN) != cipher.encrypt(PLAIN)


def test_keys_are_rotated_by_putting_a_new_one_in_front():
    old, new = KEYS
    sealed = Cipher([old]).encrypt(PLAIN)
    rotated = Cipher([new, old])

    assert rotated.decrypt(sealed) == PLAIN
    assert Cipher([new]).decrypt(rotated.encrypt(PLAIN)) == PLAIN


@pytest.mark.parametrize("sealed", ["", "not a token", "é", "gAAAA" + "A" * 100])
def test_what_cannot_be_decrypted_is_an_error_with_a_remedy(sealed):
    with pytest.raises(WrongEncryptionKeyError, match="Put back the key"):
        Cipher(KEYS).decrypt(sealed)


def test_a_wrong_key_is_an_error_that_shows_nothing():
    old, new = KEYS
    sealed = Cipher([old]).encrypt(PLAIN)
    with pytest.raises(WrongEncryptionKeyError) as caught:
        Cipher([new]).decrypt(sealed)

    assert sealed not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_sealed_secret_is_not_decrypted_before_it_is_needed():
    secret = SealedSecret("not a token", Cipher(KEYS))

    assert str(secret) == "[secret]"
    with pytest.raises(WrongEncryptionKeyError):
        secret.reveal()


# --- the field


def stored(account: Account) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT api_key FROM accounts_account WHERE id = %s", [account.pk]
        )
        token: str = cursor.fetchone()[0]
        return token


@pytest.mark.django_db
class TestField:
    def test_a_stored_secret_comes_back(self):
        account = make_account(secret=PLAIN)
        account.refresh_from_db()

        assert account.api_key == Secret(PLAIN)
        assert account.access_token is None

    def test_what_is_stored_is_a_token(self):
        account = make_account(secret=PLAIN)

        assert PLAIN not in stored(account)
        assert stored(account).startswith("gAAAA")

    def test_saving_an_unread_row_keeps_its_token(self):
        account = make_account(secret=PLAIN)
        before = stored(account)
        Account.objects.get(pk=account.pk).save()

        assert stored(account) == before

    def test_a_row_that_cannot_be_read_keeps_its_token(self, monkeypatch):
        account = make_account(secret=PLAIN)
        before = stored(account)
        for name in ("api_key", "access_token", "refresh_token"):
            field = Account._meta.get_field(name)
            monkeypatch.setattr(field, "cipher", Cipher(KEYS))
        again = Account.objects.get(pk=account.pk)
        with pytest.raises(WrongEncryptionKeyError):
            again.credential.reveal()
        again.name = "renamed"
        again.save()

        assert stored(account) == before

    def test_bulk_writes_are_encrypted_too(self):
        account = make_account(secret="old")
        Account.objects.filter(pk=account.pk).update(api_key=Secret(PLAIN))
        assert stored(account).startswith("gAAAA")

        account.api_key = Secret("other")
        Account.objects.bulk_update([account], ["api_key"])
        account.refresh_from_db()
        assert account.api_key == Secret("other")
        assert "other" not in stored(account)

    @pytest.mark.parametrize("value", [PLAIN, b"bytes", 7])
    def test_only_a_secret_can_be_stored(self, value):
        with pytest.raises(TypeError, match="api_key takes a Secret, not") as caught:
            Account.objects.update(api_key=value)

        assert PLAIN not in str(caught.value)

    @pytest.mark.parametrize(
        "lookup",
        ["", "__exact", "__in", "__contains", "__startswith", "__gt", "__regex"],
    )
    def test_a_secret_cannot_be_searched_for(self, lookup):
        value = [Secret(PLAIN)] if lookup == "__in" else Secret(PLAIN)
        with pytest.raises(TypeError, match="api_key is encrypted"):
            Account.objects.filter(**{f"api_key{lookup}": value})

    def test_whether_it_is_set_can_be_asked(self):
        make_account()

        assert Account.objects.filter(api_key__isnull=False).count() == 1
        assert Account.objects.filter(refresh_token__isnull=True).count() == 1

    @pytest.mark.parametrize("form", ["json", "xml", "jsonl", "python"])
    def test_an_export_says_that_it_is_set_and_not_what_it_is(self, form):
        account = make_account(secret=PLAIN)
        before = stored(account)
        exported = str(serializers.serialize(form, Account.objects.all()))

        assert PLAIN not in exported
        assert before not in exported
        assert "[secret]" in exported

    def test_dumpdata_shows_no_secret(self):
        account = make_account(secret=PLAIN)
        out = StringIO()
        call_command("dumpdata", "accounts", stdout=out)
        (row,) = json.loads(out.getvalue())

        assert row["fields"]["api_key"] == "[secret]"
        assert row["fields"]["access_token"] in {None, ""}
        assert stored(account) not in out.getvalue()

    def test_values_and_dicts_hold_secrets_and_no_text(self):
        account = make_account(secret=PLAIN)

        assert PLAIN not in str(list(Account.objects.values()))
        assert PLAIN not in str(list(Account.objects.values_list("api_key")))
        assert PLAIN not in str(model_to_dict(account))
        assert PLAIN not in repr(vars(account))

    def test_a_row_with_a_secret_cannot_be_pickled(self):
        account = make_account(secret=PLAIN)

        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(account)


def test_a_migration_writes_the_field_without_its_keys():
    _, path, args, kwargs = EncryptedField(null=True).deconstruct()

    assert path == "claudeproxy.crypto.EncryptedField"
    assert (args, kwargs) == ([], {"null": True})


@pytest.mark.django_db(transaction=True)
def test_the_files_of_the_database_do_not_hold_the_secret():
    if connection.vendor != "sqlite":
        pytest.skip("looks into SQLite's files")
    make_account(name="the-planted-name", secret=PLAIN)
    path = Path(str(connection.settings_dict["NAME"]))

    def read() -> bytes:
        return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))

    content = read()
    connection.close()  # the write-ahead log goes into the database
    content += read()

    assert b"the-planted-name" in content
    assert PLAIN.encode() not in content


def test_what_an_export_shows_for_a_secret_is_not_taken_for_one():
    with pytest.raises(ValidationError):
        Account._meta.get_field("api_key").to_python("[secret]")
