"""Lists in pages, in both forms."""

from typing import Any

import pytest

from claudeproxy.sandbox import paging
from claudeproxy.sandbox.errors import ApiError

LETTERS = {letter: letter.upper() for letter in "abcde"}
NUMBERS = {number: number * 10 for number in range(1, 6)}


@pytest.mark.parametrize(
    ("query", "data", "has_more"),
    [
        ({}, "ABCDE", False),
        ({"limit": ["2"]}, "AB", True),
        ({"limit": ["5"]}, "ABCDE", False),
        ({"after_id": ["b"], "limit": ["2"]}, "CD", True),
        ({"after_id": ["c"], "limit": ["2"]}, "DE", False),
        ({"after_id": ["e"]}, "", False),
        ({"before_id": ["d"], "limit": ["2"]}, "BC", True),
        ({"before_id": ["c"], "limit": ["2"]}, "AB", False),
        ({"before_id": ["a"]}, "", False),
    ],
)
def test_cursors_cut_the_list(query: Any, data: str, has_more: bool) -> None:
    page = paging.by_cursor(LETTERS, query, "letter")
    assert ("".join(page["data"]), page["has_more"]) == (data, has_more)
    assert page["first_id"] == (data[0].lower() if data else None)
    assert page["last_id"] == (data[-1].lower() if data else None)


def test_tokens_lead_from_the_highest_number_to_the_lowest() -> None:
    seen: list[int] = []
    query: dict[str, list[str]] = {"limit": ["2"]}
    while True:
        page = paging.by_token(NUMBERS, query, "me")
        seen += page["data"]
        if page["next_page"] is None:
            break
        query["page"] = [page["next_page"]]
    assert seen == [50, 40, 30, 20, 10]


def test_a_token_stays_good_when_its_place_has_gone() -> None:
    token = paging.by_token(NUMBERS, {"limit": ["2"]}, "me")["next_page"]
    left = {number: value for number, value in NUMBERS.items() if number != 4}
    assert paging.by_token(left, {"page": [token]}, "me")["data"] == [30, 20, 10]


@pytest.mark.parametrize("token", ["", "page_", "page_0", "no", "page_000000000000g"])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(ApiError) as caught:
        paging.by_token(NUMBERS, {"page": [token]}, "me")
    assert caught.value.status == 400
