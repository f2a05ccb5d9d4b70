"""The operator's page names everything, and its examples work."""

import re
from pathlib import Path

import pytest

from claudeproxy.sandbox import control, script
from claudeproxy.sandbox.log import Entry, Outcome
from claudeproxy.sandbox.script import Step

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"-d '\s*(\{.*?)'", PAGE, re.DOTALL)
NAMES = [*Step.__struct_fields__, *Entry.__struct_fields__, *Outcome]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_and_outcome_is_described(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("place", [place for place in control.ROUTES if place])
def test_every_control_call_is_described(place: str) -> None:
    for method in control.ROUTES[place]:
        assert f"`{method} /_sandbox/{place}" in PAGE


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_scripts_in_the_examples_are_valid(example: str) -> None:
    assert script.parse_request(example.encode()).steps


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 4
