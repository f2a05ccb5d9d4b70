"""Everything that belongs to single accounts."""

import itertools
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects.disk import Disk, Extent

LIMIT: Final = 1_000


class Kept(Protocol):
    """What has an id and an age."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def created_at(self) -> datetime:
        """When it came about."""


T = TypeVar("T", bound=Kept)


@dataclass(frozen=True, slots=True)
class Owned:
    """Which account has an object."""

    kind: str
    id: str
    account: str
    created_at: datetime


def new_id(prefix: str) -> str:
    """Make up an id that tells what it names and where it comes from."""
    return f"{prefix}_sandbox{secrets.token_hex(10)}"


class Shelf(Generic[T]):
    """The objects of one kind, by account; safe to use from any thread."""

    def __init__(self, kind: str, noun: str, numbers: Iterator[int]) -> None:
        self.kind = kind
        self.noun = noun
        self._numbers = numbers
        self._lock = threading.Lock()
        self._by_account: dict[str, dict[str, tuple[int, T]]] = {}

    def require_room(self, account: str) -> None:
        """Check that one more can be kept.

        Errors: ApiError 400 if the account has too many.
        """
        if len(self._by_account.get(account, ())) >= LIMIT:
            text = f"The sandbox keeps {LIMIT} of a kind; delete a {self.noun}"
            raise ApiError(400, text, code="storage_quota_exceeded")

    def add(self, account: str, thing: T) -> None:
        """Keep one more."""
        with self._lock:
            things = self._by_account.setdefault(account, {})
            things[thing.id] = (next(self._numbers), thing)

    def add_in_place_of_oldest(self, account: str, thing: T) -> None:
        """Keep one more, and forget the oldest if there are too many."""
        with self._lock:
            things = self._by_account.setdefault(account, {})
            if len(things) >= LIMIT:
                del things[next(iter(things))]
        self.add(account, thing)

    def find(self, account: str, name: str) -> T | None:
        """Find one by its id, None if this account has no such thing."""
        found = self._by_account.get(account, {}).get(name)
        return found[1] if found else None

    def get(self, account: str, name: str) -> T:
        """Find one by its id.

        Errors: ApiError 404, whether it is unknown or belongs to another account.
        """
        found = self.find(account, name)
        if found is None:
            raise ApiError(404, f"{self.noun.capitalize()} not found: {name}")
        return found

    def remove(self, account: str, name: str) -> None:
        """Forget one."""
        with self._lock:
            self._by_account.get(account, {}).pop(name, None)

    def numbered(self, account: str) -> dict[int, T]:
        """List those of an account by number, which grows with time."""
        with self._lock:
            return dict(self._by_account.get(account, {}).values())

    def newest_first(self, account: str) -> list[T]:
        """List those of an account."""
        return list(reversed(self.numbered(account).values()))

    def owned(self) -> list[Owned]:
        """Say whose everything is."""
        with self._lock:
            return [
                Owned(self.kind, thing.id, account, thing.created_at)
                for account, things in self._by_account.items()
                for _, thing in things.values()
            ]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._by_account.clear()


@dataclass(slots=True)
class File:
    """An uploaded file."""

    id: str
    created_at: datetime
    filename: str
    mime_type: str
    content: Extent
    is_downloadable: bool
    expires_at: datetime | None


@dataclass(slots=True)
class Counts:
    """How many requests of a batch have come to which end."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


@dataclass(slots=True)
class Batch:
    """A message batch; the extent is its body, then its results."""

    id: str
    created_at: datetime
    due_at: datetime
    expires_at: datetime
    content: Extent
    counts: Counts
    cancel_initiated_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SkillFile:
    """One file of a skill, and its path below the skill's directory."""

    path: str
    content: Extent


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a skill."""

    id: str
    created_at: datetime
    number: int
    name: str
    description: str
    files: tuple[SkillFile, ...]


@dataclass(slots=True)
class Skill:
    """A skill, its versions from the oldest on."""

    id: str
    created_at: datetime
    updated_at: datetime
    display_name: str
    versions: dict[str, Version]

    @property
    def latest(self) -> Version:
        """The version added last; there always is one."""
        return next(reversed(self.versions.values()))


@dataclass(slots=True)
class Container:
    """Where code would run, and the skills that are loaded there."""

    id: str
    created_at: datetime
    expires_at: datetime
    skills: list[dict[str, str]] | None


@dataclass(slots=True)
class Thread:
    """A conversation that is held here, and which answer continues it."""

    began_at: datetime
    last_at: datetime
    latest_id: str
    system: bytes
    tools: bytes


@dataclass(frozen=True, slots=True)
class ThreadTurn:
    """One answer of a thread, under the id of the answer."""

    id: str
    created_at: datetime
    thread: Thread


class Objects:
    """What all accounts have, and how new objects shall behave."""

    def __init__(self) -> None:
        self.disk = Disk()
        numbers = itertools.count(1)
        self.batches = Shelf[Batch]("message_batch", "message batch", numbers)
        self.files = Shelf[File]("file", "file", numbers)
        self.skills = Shelf[Skill]("skill", "skill", numbers)
        self.containers = Shelf[Container]("container", "container", numbers)
        self.turns = Shelf[ThreadTurn]("thread", "thread", numbers)
        self.next_number = numbers.__next__
        self.restore()

    def restore(self) -> None:
        """Forget all objects, and go back to the settings of the start."""
        self.batch_seconds = 0.0
        self.uploads_are_downloadable = True
        self.batches.clear()
        self.files.clear()
        self.skills.clear()
        self.containers.clear()
        self.turns.clear()
        self.disk.clear()

    def owned(self) -> list[Owned]:
        """Say which account has which object, in the order in which they came."""
        shelves = (self.batches, self.files, self.skills, self.containers, self.turns)
        found = [item for shelf in shelves for item in shelf.owned()]
        return sorted(found, key=lambda item: item.created_at)
