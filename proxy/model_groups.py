"""Which models share a rate limit: the data, and how a model's id is looked up in it.

Limits of API keys are token buckets, of each organization and of each group of models.
Subscriptions have limits of whole lines besides.
Source: Claude API documentation, "Rate limits", as of November 2026.
"""

import re
from functools import lru_cache
from types import MappingProxyType

# Ids without their date. A model that is not named here has a bucket of its own: so do
# Opus 5, Opus 5.5, Sonnet 5.5, Fable 5.2 and each Haiku from 4.5 on.
_TOGETHER = MappingProxyType(
    {
        "claude-opus-4-5": "Opus 4.5 to 4.8",
        "claude-opus-4-6": "Opus 4.5 to 4.8",
        "claude-opus-4-7": "Opus 4.5 to 4.8",
        "claude-opus-4-8": "Opus 4.5 to 4.8",
        "claude-fable-5": "Fable 5 and 5.1",
        "claude-fable-5-1": "Fable 5 and 5.1",
    }
)
# Families that are together, whatever their members are called.
_FAMILIES = (("claude-sonnet-4", "Sonnet 4.x"), ("claude-mythos", "Mythos"))
# Lines that a subscription has limits of.
LINES = frozenset({"opus", "sonnet"})

_DATE = re.compile(r"-\d{8}$")
# Models are named by callers: a name this long is none, and so many are enough.
_LONGEST_ID = 200
_REMEMBERED = 1_000


def group_of(model: str) -> str:
    """Return what tells the group of a model from all others."""
    return _group_of(model[:_LONGEST_ID])


def line_of(model: str) -> str | None:
    """Return the line of a model, if it is one that has limits."""
    return _line_of(model[:_LONGEST_ID])


@lru_cache(maxsize=_REMEMBERED)
def _group_of(model: str) -> str:
    name = _DATE.sub("", model)
    for family, group in _FAMILIES:
        if name == family or name.startswith(family + "-"):
            return group
    return _TOGETHER.get(name, name)


@lru_cache(maxsize=_REMEMBERED)
def _line_of(model: str) -> str | None:
    return next((part for part in model.split("-") if part in LINES), None)
