"""Pages of several accounts' lists, against an upstream of a few lines."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import listing
from proxy.listing import Chunk, Cursor, Item, Page, Place, Source
from tests.factories import NOW


def item(object_id: str, seconds: int, account_id: int, *, is_shared=False) -> Item:
    at = NOW + timedelta(seconds=seconds)
    return Item(object_id, at, account_id, object_id.encode(), is_shared)


@dataclass
class Upstream:
    """The lists of some accounts, newest first; what is alike in any order."""

    lists: dict[int, list[Item]] = field(default_factory=dict)

    def read(self, source: Source, size: int) -> Chunk:
        """A page behind the object whose id is the token, as the API reads it."""
        items, token = self.lists[source.account_id], source.next_token
        ids = [item.id for item in items]
        start = ids.index(token) + 1 if token else 0
        page = items[start : start + size]
        source.is_exhausted = start + size >= len(items)
        source.next_token = None if source.is_exhausted else page[-1].id
        return Chunk(token, page)

    def page(self, token: str | None, size: int) -> tuple[list[str], str | None]:
        """A page of all accounts, as `lists` puts it together."""
        cursor = listing.decode(token) if token else None
        place = cursor.place if cursor else None
        tokens = cursor.tokens if cursor else {}
        shared_from = cursor.shared_from if cursor else min(self.lists, default=0)
        sources = [
            Source(i, tokens.get(str(i)), is_exhausted=tokens.get(str(i), "") is None)
            for i in self.lists
        ]
        found = []
        for source in sources:

            def here(source: Source = source) -> list[Item]:
                return listing.behind(listing.shown(source, shared_from), place)

            while not source.is_exhausted and len(here()) < size:
                source.chunks.append(self.read(source, size))
            found.append(here())
        page = listing.first_page(
            found, size, are_whole=all(source.is_exhausted for source in sources)
        )
        return [i.id for i in page.items], listing.next_token(
            page, sources, shared_from
        )

    @property
    def whole(self) -> list[str]:
        return [item.id for item in listing.merged(list(self.lists.values()))]


@st.composite
def upstreams(draw: st.DrawFn) -> Upstream:
    upstream = Upstream()
    for account_id in draw(st.sets(st.integers(1, 5), min_size=1)):
        # Few moments, so that many objects are made at the same.
        times = sorted(draw(st.lists(st.integers(0, 4), max_size=12)), reverse=True)
        names = draw(st.permutations(range(len(times))))
        upstream.lists[account_id] = [
            item(f"o{account_id}-{name}", at, account_id)
            for name, at in zip(names, times, strict=True)
        ]
    return upstream


@given(upstreams(), st.integers(1, 7))
def test_pages_show_everything_once_and_in_order(upstream, size):
    seen, token = [], None
    while True:
        ids, token = upstream.page(token, size)
        seen += ids
        if token is None:
            break
        assert len(ids) == size

    assert seen == upstream.whole
    assert len(seen) == len(set(seen))


@given(upstreams(), st.integers(1, 7), st.data())
def test_what_is_made_meanwhile_repeats_and_hides_nothing(upstream, size, data):
    expected, seen, token, made = upstream.whole, [], None, 0
    while True:
        ids, token = upstream.page(token, size)
        seen += ids
        if token is None:
            break
        account_id = data.draw(st.sampled_from(sorted(upstream.lists)))
        made += 1
        new = item(f"new-{made}", 10 + made, account_id)
        upstream.lists[account_id].insert(0, new)

    assert seen == expected


@given(upstreams(), st.integers(1, 7), st.data())
def test_what_is_deleted_meanwhile_hides_nothing_else(upstream, size, data):
    left, seen, token = set(upstream.whole), [], None
    while True:
        ids, token = upstream.page(token, size)
        seen += ids
        if token is None:
            break
        gone = data.draw(st.sampled_from(upstream.whole))
        # Upstream tokens stay good although their object goes: those are kept here.
        if gone not in listing.decode(token).tokens.values():
            left.discard(gone)
            for account_id, items in upstream.lists.items():
                upstream.lists[account_id] = [i for i in items if i.id != gone]

    assert left <= set(seen)


@given(upstreams(), st.data())
def test_a_place_cuts_a_list_in_two(upstream, data):
    whole = upstream.whole
    if not whole:
        return
    position = data.draw(st.integers(0, len(whole) - 1))
    every = listing.merged(list(upstream.lists.values()))
    place: Place = every[position]
    lists = list(upstream.lists.values())

    behind = listing.merged([listing.behind(items, place) for items in lists])
    before = listing.merged([listing.before(items, place) for items in lists])
    assert [i.id for i in behind] == whole[position + 1 :]
    assert [i.id for i in before] == whole[:position]


@given(upstreams(), st.integers(1, 7))
def test_pages_backwards_show_everything_once_too(upstream, size):
    whole = listing.merged(list(upstream.lists.values()))
    if not whole:
        return
    place, seen = whole[-1], [whole[-1].id]
    while True:
        lists = [listing.before(items, place) for items in upstream.lists.values()]
        page = listing.last_page(lists, size, are_whole=True)
        seen = [i.id for i in page.items] + seen
        if not page.has_more:
            break
        place = page.items[0]

    assert seen == upstream.whole


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_what_all_accounts_have_is_shown_by_the_first(size):
    def shared(account_id):
        return [item(i, 0, account_id, is_shared=True) for i in ("pdf", "pptx")]

    upstream = Upstream(
        {
            1: [item("a", 2, 1), *shared(1)],
            2: [item("b", 1, 2), *shared(2)],
            3: shared(3),
        }
    )
    seen, token = [], None
    while True:
        ids, token = upstream.page(token, size)
        seen += ids
        if token is None:
            break

    assert seen == ["a", "b", "pdf", "pptx"]


def test_an_account_that_comes_meanwhile_is_read_from_the_place_on():
    upstream = Upstream({1: [item("a", 3, 1), item("b", 1, 1)]})
    _, token = upstream.page(None, 1)
    upstream.lists[2] = [item("x", 4, 2), item("y", 2, 2)]

    assert upstream.page(token, 9) == (["y", "b"], None)


def test_a_page_of_nothing_has_no_successor():
    page = Page([], has_more=True)

    assert listing.next_token(page, [], 0) is None


@given(
    st.text("abcXYZ09", min_size=1, max_size=30),
    st.dictionaries(st.text("0123456789", min_size=1), st.none() | st.text()),
)
def test_a_token_is_read_as_it_was_written(object_id, tokens):
    cursor = Cursor(object_id, NOW, 3, 1, tokens)

    assert listing.decode(listing.encode(cursor)) == cursor


@given(st.text() | st.text("abc-_=0").map(lambda text: "page_" + text))
def test_what_is_no_token_is_refused_in_one_way(text):
    with pytest.raises(ValueError, match="no token of this gateway"):
        listing.decode(text)


def test_a_token_is_bounded_and_names_a_proper_id():
    for cursor in (
        Cursor("a" * 20_000, NOW, 1, 1, {}),
        Cursor("../x", NOW, 1, 1, {}),
        Cursor("a", NOW, 1, 1, {"1": "x" * 20_000}),
    ):
        with pytest.raises(ValueError, match="no token of this gateway"):
            listing.decode(listing.encode(cursor))


def test_what_two_accounts_have_is_shown_by_the_first():
    both = [
        [item(i, s, account) for i, s in (("a", 2), ("b", 1))] for account in (1, 2)
    ]

    assert [(i.id, i.account_id) for i in listing.merged(both)] == [("a", 1), ("b", 1)]
    for place in (both[0][0], both[1][0]):
        left = listing.merged([listing.behind(items, place) for items in both])
        assert [i.id for i in left] == ["b"]
    for place in (both[0][1], both[1][1]):
        newer = listing.merged([listing.before(items, place) for items in both])
        assert [i.id for i in newer] == ["a"]
