"""The pages of the model list."""

from typing import Any

import pytest

from claudeproxy.sandbox import catalogue
from claudeproxy.sandbox.errors import ApiError

MODELS = [catalogue.describe(name) for name in ("a", "b", "c", "d")]
OLD = catalogue.describe("claude-sonnet-4-5-20250929")


def page(**query: str) -> tuple[list[str], object]:
    found: Any = catalogue.page(
        MODELS, {name: [value] for name, value in query.items()}
    )
    ids = [info.id for info in found["data"]]
    assert (found["first_id"], found["last_id"]) == (
        (ids[0], ids[-1]) if ids else (None, None)
    )
    return ids, found["has_more"]


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ({}, ["a", "b", "c", "d"], False),
        ({"limit": "3"}, ["a", "b", "c"], True),
        ({"limit": "4"}, ["a", "b", "c", "d"], False),
        ({"after_id": "b"}, ["c", "d"], False),
        ({"after_id": "a", "limit": "1"}, ["b"], True),
        ({"after_id": "d"}, [], False),
        ({"before_id": "c"}, ["a", "b"], False),
        ({"before_id": "d", "limit": "2"}, ["b", "c"], True),
        ({"before_id": "a"}, [], False),
        ({"beta": "true"}, ["a", "b", "c", "d"], False),
    ],
)
def test_a_page_is_cut_at_its_cursor(
    query: dict[str, str], ids: list[str], has_more: bool
) -> None:
    assert page(**query) == (ids, has_more)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"limit": "0"}, "limit: "),
        ({"limit": "1001"}, "limit: "),
        ({"limit": "many"}, "limit: "),
        ({"after_id": "z"}, "after_id: "),
        ({"before_id": "z"}, "before_id: "),
    ],
)
def test_a_wrong_parameter_is_named(query: dict[str, str], reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        page(**query)
    assert caught.value.status == 400
    assert caught.value.message.startswith(reason)


def test_the_list_can_be_filtered_by_lifecycle() -> None:
    found: Any = catalogue.page([*MODELS, OLD], {"lifecycle[]": ["deprecated"]})
    assert found["data"] == [OLD]


def test_an_alias_finds_the_dated_model() -> None:
    assert catalogue.find({OLD.id: OLD}, "claude-sonnet-4-5") is OLD


def test_an_alias_of_a_missing_model_is_not_found() -> None:
    with pytest.raises(ApiError, match="model: claude-sonnet-4-5"):
        catalogue.find({}, "claude-sonnet-4-5")
