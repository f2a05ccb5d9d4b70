"""The admin's list of sessions, as one object; the template only prints it.

The rows are no rows of a table, so Django's own list cannot show them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.core.paginator import Paginator

from claudeproxy.conf import conf
from sessions_limit import listing
from sessions_limit.keys import GLOBAL
from sessions_limit.listing import ShownSession, Wanted

_ROWS_A_PAGE = 100
_KEYS_NAMED = 30
_LONGEST_SEARCH = 200
_SEARCH, _PAGE = "q", "p"
_KEY_ID = re.compile(r"[1-9][0-9]{0,18}")
_IS_OWN = {"shared": False, "own": True}
_IS_ALIVE = {"alive": True, "blocked": False}


@dataclass(frozen=True)
class Choice:
    """A link that changes what the list shows; no address: what it shows now."""

    words: str
    query: str
    is_selected: bool


@dataclass(frozen=True)
class Filter:
    title: str
    choices: tuple[Choice, ...]
    not_named: int = 0


@dataclass(frozen=True)
class SessionList:
    """One page of the list, and the ways to others."""

    rows: Sequence[ShownSession]
    count: int
    total: int
    shared_used: int
    shared_limit: int
    is_limited: bool
    filters: tuple[Filter, ...]
    pages: tuple[Choice, ...]
    search: str
    is_search_too_long: bool
    filter_params: Mapping[str, str]
    query_without_filters: str


def load(asked: Mapping[str, str]) -> SessionList:
    """Make the page that an address asks for; what it does not know is left out."""
    sessions = listing.load()
    keys = {s.live.client.key_id: s.live.client.key_name for s in reversed(sessions)}
    is_search_too_long = len(asked.get(_SEARCH, "")) > _LONGEST_SEARCH
    params = _known_params(asked)
    wanted = Wanted(
        has_own_limit=_IS_OWN.get(params.get("scope", "")),
        key_id=int(params["key"]) if "key" in params else None,
        is_alive=_IS_ALIVE.get(params.get("state", "")),
        search=params.get(_SEARCH, ""),
    )
    found = list(listing.matching(sessions, wanted))
    paginator = Paginator(found, _ROWS_A_PAGE)
    page = paginator.get_page(asked.get(_PAGE))
    return SessionList(
        rows=list(page.object_list),
        count=len(found),
        total=len(sessions),
        shared_used=listing.count_alive(s.live for s in sessions)[GLOBAL],
        shared_limit=conf.session_max_concurrent,
        is_limited=conf.session_enabled,
        filters=_filters(params, keys),
        pages=_pages(params, paginator, page.number),
        search=params.get(_SEARCH, ""),
        is_search_too_long=is_search_too_long,
        filter_params={k: v for k, v in params.items() if k != _SEARCH},
        query_without_filters=_query({k: params[k] for k in params if k == _SEARCH}),
    )


def _known_params(asked: Mapping[str, str]) -> dict[str, str]:
    known = {"scope": _IS_OWN, "state": _IS_ALIVE}
    params = {name: asked[name] for name in known if asked.get(name) in known[name]}
    if _KEY_ID.fullmatch(asked.get("key", "")):
        params["key"] = asked["key"]
    search = asked.get(_SEARCH, "").strip()
    if search and len(search) <= _LONGEST_SEARCH:
        params[_SEARCH] = search
    return params


def _filters(params: Mapping[str, str], keys: Mapping[int, str]) -> tuple[Filter, ...]:
    by_name = sorted(keys, key=lambda key: (keys[key], key))
    named = {
        str(key): keys[key]
        for number, key in enumerate(by_name)
        if number < _KEYS_NAMED or params.get("key") == str(key)
    }
    return (
        _filter(params, "state", "status", {word: word for word in _IS_ALIVE}),
        _filter(
            params,
            "scope",
            "limit",
            {"shared": "the shared limit", "own": "a limit of the key's own"},
        ),
        _filter(params, "key", "client key", named, len(keys) - len(named)),
    )


def _filter(
    params: Mapping[str, str],
    name: str,
    title: str,
    values: Mapping[str, str],
    not_named: int = 0,
) -> Filter:
    chosen = params.get(name)
    others = {key: value for key, value in params.items() if key != name}
    choices = [Choice("All", _query(others), chosen is None)]
    choices += [
        Choice(words, _query({**others, name: value}), chosen == value)
        for value, words in values.items()
    ]
    return Filter(title, tuple(choices), not_named)


def _pages(
    params: Mapping[str, str], paginator: "Paginator[ShownSession]", current: int
) -> tuple[Choice, ...]:
    if paginator.num_pages == 1:
        return ()
    return tuple(
        Choice(
            str(number),
            _query({**params, _PAGE: str(number)}) if isinstance(number, int) else "",
            number == current,
        )
        for number in paginator.get_elided_page_range(current)
    )


def _query(params: Mapping[str, str]) -> str:
    return f"?{urlencode(params)}"
