"""The operator's page names everything, and its examples work."""

import re
from pathlib import Path

import pytest

from claudeproxy.sandbox import control
from claudeproxy.sandbox.log import Entry, Outcome, TokenOutcome
from claudeproxy.sandbox.oauth import scopes
from claudeproxy.sandbox.oauth.people import People, Person
from claudeproxy.sandbox.script import Step
from claudeproxy.sandbox.state import Sandbox

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"^curl (?:-X (\w+) )?http://127\.0\.0\.1:4010(/_sandbox\S+)"
    r"(?: -d '\s*(\{.*?)')?$",
    PAGE,
    re.DOTALL | re.MULTILINE,
)
NAMES = [*Step.__struct_fields__, *Entry.__struct_fields__, *Outcome, *TokenOutcome]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_and_outcome_is_described(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("place", [place for place in control.ROUTES if place])
def test_every_control_call_is_described(place: str) -> None:
    for method in control.ROUTES[place]:
        assert f"`{method} /_sandbox/{place}" in PAGE


@pytest.mark.parametrize(("method", "path", "body"), EXAMPLES)
def test_the_examples_work(method: str, path: str, body: str) -> None:
    method = method or ("POST" if body else "GET")
    status, _ = control.handle(Sandbox(), method, path, "", body.encode())
    assert status == 200


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 14


@pytest.mark.parametrize("person", list(People()), ids=str)
def test_every_person_is_introduced(person: Person) -> None:
    assert f"| `{person.name}` | {person.full_name}" in PAGE
    assert f"| {person.organization_name} |" in PAGE


@pytest.mark.parametrize("scope", scopes.KNOWN)
def test_every_scope_is_named(scope: str) -> None:
    assert f"`{scope}`" in PAGE
