from typing import Any

import pytest

from accounts import capabilities
from accounts.models import Account
from tests.accounts import provider
from tests.factories import NOW, make_account

MODELS_PATH = "/v1/models"
OPUS = "claude-opus-5-5"
HAIKU = "claude-haiku-4-5-20251001"


# --- names


@pytest.mark.parametrize(
    ("ids", "more"),
    [
        ([], []),
        ([OPUS], [f"{OPUS}-latest"]),
        ([HAIKU], ["claude-haiku-4-5", "claude-haiku-4-5-latest"]),
        (["claude-opus-4"], ["claude-opus-4-latest", "claude-opus-4-0"]),
        (
            ["claude-x-1-20250101", "claude-x-1-20250202"],
            ["claude-x-1", "claude-x-1-latest", "claude-x-1-0"],
        ),
        # What only looks like a date is part of the name.
        (["claude-x-20"], ["claude-x-20-latest"]),
        (["m-19991231"], ["m-19991231-latest"]),
        (["m-20250101-b"], ["m-20250101-b-latest"]),
    ],
)
def test_a_model_answers_to_its_id_and_to_its_aliases(ids, more):
    names: Any = capabilities.names([{"id": model_id} for model_id in ids])

    assert names == {*ids, *more}


def test_models_that_are_not_known_answer_to_nothing_known():
    assert capabilities.names(None) is None


# --- reading one model


def test_what_is_kept_of_a_model_is_what_is_used():
    kept = capabilities.parse_model(
        {
            "type": "model",
            "id": OPUS,
            "display_name": "Claude Opus 5.5",
            "created_at": "2026-01-01T00:00:00Z",
            "lifecycle": "active",
            "max_input_tokens": 1_000_000,
            "max_tokens": 128_000,
            "capabilities": {
                "batch": {"supported": True},
                "citations": {"supported": False},
                "effort": {"supported": True, "max": {"supported": True}},
                "thinking": {
                    "supported": False,
                    "types": {"enabled": {"supported": True}},
                },
            },
        }
    )

    assert kept == {
        "id": OPUS,
        "name": "Claude Opus 5.5",
        "lifecycle": "active",
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
        "features": ["batch", "effort", "effort.max", "thinking.types.enabled"],
    }


def test_all_of_a_model_but_its_id_may_be_missing():
    assert capabilities.parse_model({"id": OPUS}) == {
        "id": OPUS,
        "name": OPUS,
        "lifecycle": "",
        "max_input_tokens": None,
        "max_tokens": None,
        "features": [],
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("display_name", 7),
        ("max_tokens", "many"),
        ("capabilities", []),
        ("capabilities", {"batch": True}),
    ],
)
def test_what_has_an_odd_shape_counts_as_missing(field, value):
    model = {"id": OPUS, field: value}

    assert capabilities.parse_model(model) == capabilities.parse_model({"id": OPUS})


@pytest.mark.parametrize("model", [{}, {"id": ""}, {"id": None}, {"id": 7}])
def test_a_model_without_an_id_is_none(model):
    assert capabilities.parse_model(model) is None


# --- reading the list


def ids_of(models):
    return [model["id"] for model in models]


@pytest.mark.django_db
def test_the_models_of_an_api_key_are_read(claude):
    account = make_account(secret="sk-sandbox-ada")
    found: Any = capabilities.fetch(account)

    assert ids_of(found) == list(claude.sandbox.accounts["ada"].models)
    assert found[0]["max_input_tokens"]
    assert found[0]["features"]


@pytest.mark.django_db
def test_the_models_of_a_person_are_read_with_the_token(claude, settings):
    sandbox = provider.configure(settings, claude)
    found = capabilities.fetch(provider.signed_in(sandbox, "radia"))
    (entry,) = sandbox.log.after()

    assert ids_of(found) == list(sandbox.oauth.people["radia"].models)
    assert entry.credential_headers == ["authorization"]
    assert dict(entry.headers)["anthropic-beta"] == "oauth-2025-04-20"


@pytest.mark.django_db
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_all_pages_are_read(claude, monkeypatch, size):
    monkeypatch.setattr(capabilities, "_PAGE_SIZE", size)
    found = capabilities.fetch(make_account(secret="sk-sandbox-ada"))

    assert ids_of(found) == list(claude.sandbox.accounts["ada"].models)
    assert len(claude.sandbox.log.after()) == -(-4 // size)


@pytest.mark.django_db
def test_a_list_without_an_end_is_given_up(claude):
    page = {"data": [{"id": OPUS}], "has_more": True, "last_id": OPUS}
    step = {"path": MODELS_PATH, "body": page, "times": "forever"}
    claude.sandbox.script.add("ada", step)

    assert capabilities.fetch(make_account(secret="sk-sandbox-ada")) is None
    assert len(claude.sandbox.log.after()) == 20


TROUBLE: dict[str, Any] = {
    "500": {"status": 500},
    "401": {"status": 401},
    "reset": {"reset": "before_head"},
    "cut": {"cut_at_byte": 30},
    "HTML": {"body": "<p>Hello"},
    "no list": {"body": {"data": None}},
    "no object": {"body": [1]},
    "no models": {"body": {"data": ["opus"]}},
    "no next page": {"body": {"data": [], "has_more": True}},
    "empty": {"body": {"data": []}},
}


@pytest.mark.django_db
@pytest.mark.parametrize("step", TROUBLE.values(), ids=TROUBLE)
def test_a_list_that_cannot_be_read_keeps_what_was_known(claude, step):
    known: Any = {"capabilities": [{"id": "known"}], "capabilities_at": NOW}
    account = make_account(secret="sk-sandbox-ada", **known)
    claude.sandbox.script.add("ada", {"path": MODELS_PATH, **step})

    assert capabilities.refresh(account, now=NOW) is False
    assert Account.objects.values(*known).get() == known


@pytest.mark.django_db
def test_half_a_list_is_not_kept(claude, monkeypatch):
    monkeypatch.setattr(capabilities, "_PAGE_SIZE", 2)
    steps = [{"path": MODELS_PATH}, {"path": MODELS_PATH, "status": 500}]
    claude.sandbox.script.add("ada", *steps)
    account = make_account(secret="sk-sandbox-ada")

    assert capabilities.refresh(account, now=NOW) is False
    assert Account.objects.get().capabilities is None


@pytest.mark.django_db
@pytest.mark.usefixtures("claude")
def test_a_list_that_was_read_replaces_what_was_known():
    account = make_account(secret="sk-sandbox-ada", capabilities=[{"id": "known"}])

    assert capabilities.refresh(account, now=NOW) is True
    row: Any = Account.objects.get()
    assert OPUS in ids_of(row.capabilities)
    assert "known" not in ids_of(row.capabilities)
    assert row.capabilities_at == NOW
