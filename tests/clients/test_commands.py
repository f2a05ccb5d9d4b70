import io
import json

import pytest
from django.core.management import CommandError, call_command

from clients import directory, keys
from clients.models import ClientKey

pytestmark = pytest.mark.django_db


def create(*arguments):
    """What the command printed on standard output and on standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command("create_client_key", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_key_alone_is_on_standard_output():
    out, err = create("alice")

    assert keys.is_intact(out.strip())
    assert out.strip() not in err
    assert "cannot be shown again" in err


def test_the_printed_key_is_one_the_gateway_knows():
    out, _ = create("alice")
    known = directory.load()[keys.digest(out.strip())]

    assert (known.name, known.role) == ("alice", "user")


def test_json_says_it_for_programs():
    out, err = create("alice", "--role", "admin", "--json")
    fields = json.loads(out)

    assert keys.is_intact(fields.pop("key"))
    assert fields == {
        "id": ClientKey.objects.get().pk,
        "name": "alice",
        "role": "admin",
        "session_limit": None,
    }
    assert err == ""


def test_a_name_that_is_taken_is_an_error():
    create("alice")
    with pytest.raises(CommandError, match="'alice' exists already"):
        create("alice")

    assert ClientKey.objects.count() == 1


@pytest.mark.parametrize("arguments", [[], ["alice", "--role", "owner"], [" "]])
def test_wrong_arguments_are_an_error(arguments):
    with pytest.raises(CommandError):
        create(*arguments)

    assert not ClientKey.objects.exists()


def test_a_key_may_have_a_session_limit_of_its_own():
    out, _ = create("alice", "--session-limit", "5", "--json")

    assert json.loads(out)["session_limit"] == 5
    assert ClientKey.objects.get().session_limit == 5


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_what_cannot_be_a_session_limit_is_an_error(limit):
    with pytest.raises(CommandError, match=r"session[-_]limit"):
        create("alice", f"--session-limit={limit}")

    assert not ClientKey.objects.exists()
