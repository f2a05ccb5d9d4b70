"""The people who can sign in to the sandbox."""

from collections.abc import Iterable, Iterator
from typing import Final

from claudeproxy.sandbox.accounts import (
    COMMON_MODELS,
    Account,
    Organization,
    stable_id,
)
from claudeproxy.sandbox.errors import ControlError
from claudeproxy.sandbox.oauth.usage import UnifiedLimits

ORBITS: Final = Organization.named("Sandbox Orbits", "claude_team")
SIGNALS: Final = Organization.named("Sandbox Signals", "claude_enterprise")
HEDYS_HOME: Final = Organization.named("Sandbox home of Hedy Lamarr", "claude_max")
RADIAS_HOME: Final = Organization.named("Sandbox home of Radia Perlman", "claude_pro")


class Person(Account):
    """A holder of an account in one organization.

    Somebody with accounts in two organizations is here twice, with one holder_id.
    """

    rate_limits: UnifiedLimits

    def __init__(
        self,
        name: str,
        full_name: str,
        organization: Organization,
        models: Iterable[str] = COMMON_MODELS,
    ) -> None:
        super().__init__(name, None, models, organization=organization)
        self.full_name = full_name
        self.email = full_name.lower().replace(" ", ".") + "@sandbox.example"
        self.holder_id = stable_id(f"holder:{full_name}")
        self.rate_limits = UnifiedLimits()


class People:
    """Everybody who can sign in, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Person] = {}
        self.restore()

    def __iter__(self) -> Iterator[Person]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Person:
        """Find somebody by name.

        Errors: ControlError 400 if nobody has that name.
        """
        person = self._by_name.get(name)
        if person is None:
            raise ControlError(400, f"person: nobody here is called {name}")
        return person

    def restore(self) -> None:
        """Go back to the default people."""
        self._by_name = {}
        self.add(Person("dorothy", "Dorothy Vaughan", ORBITS))
        self.add(Person("katherine", "Katherine Johnson", ORBITS))
        self.add(Person("hedy-work", "Hedy Lamarr", SIGNALS))
        self.add(Person("hedy-home", "Hedy Lamarr", HEDYS_HOME))
        models = (*COMMON_MODELS, "claude-haiku-4-5-20251001")
        self.add(Person("radia", "Radia Perlman", RADIAS_HOME, models))

    def add(self, person: Person) -> None:
        """Let one more person sign in, or replace the one of that name."""
        self._by_name[person.name] = person
