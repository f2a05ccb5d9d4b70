"""What sessions are shown with and others keep: client keys and accounts.

Apps do not import each other; the roof says at the start who answers.
"""

from collections.abc import Collection, Mapping
from typing import Protocol


class Neighbours(Protocol):
    """Those who know keys and accounts."""

    def key_limits(self, key_ids: Collection[int]) -> Mapping[int, int | None]:
        """Tell the session limit of each key that there is; None: the shared one."""

    def account_ids(self, names: Collection[str]) -> Mapping[str, int]:
        """Tell which accounts have these names."""


_neighbours: list[Neighbours] = []


def introduce(neighbours: Neighbours) -> None:
    """Say who is to be asked from now on."""
    _neighbours[:] = [neighbours]


def key_limits(key_ids: Collection[int]) -> Mapping[int, int | None]:
    """Ask for the session limits of keys."""
    return _neighbours[0].key_limits(key_ids)


def account_ids(names: Collection[str]) -> Mapping[str, int]:
    """Ask which accounts have these names."""
    return _neighbours[0].account_ids(names)
