"""What the pages for operators name is there, and what is there is named."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands

from claudeproxy import schedules

ROOT = Path(settings.BASE_DIR)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
OUR_COMMANDS = sorted(
    name
    for name, app in get_commands().items()
    if app in {"accounts", "claudeproxy", "clients", "sessions_limit", "usage"}
)
SOURCES = sorted((ROOT / "claudeproxy").glob("*.py"))
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:manage\.py|\./run manage) ([a-z][a-z_]*)")
_RUN = re.compile(r"\./run ([a-z]+)")
_PATH = re.compile(
    r"`((?:accounts|claudeproxy|clients|proxy|sessions_limit|usage|docs|tests|bench)/[\w./-]+)`"
)
_SETTING = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`")
# Of the clients, of the code, and the form that reads from a file.
_NO_SETTINGS = {
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ENCRYPTION_KEYS_FILE",
    "GATEWAY_MIDDLEWARE",
}

by_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(_FENCE.sub("", text_of(page)))
    }


@by_page
def test_every_link_leads_somewhere(page):
    for path, anchor in _LINK.findall(text_of(page)):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors_of(target), f"{path}#{anchor}"


@by_page
def test_every_command_exists(page):
    named = set(_COMMAND.findall(text_of(page)))

    assert named <= set(get_commands())


@by_page
def test_every_use_of_run_is_one_that_it_knows(page):
    known = re.findall(r"^([a-z]+)\)", (ROOT / "run").read_text(), re.MULTILINE)

    assert set(_RUN.findall(text_of(page))) <= set(known)


@by_page
def test_every_path_exists(page):
    missing = [
        path for path in _PATH.findall(text_of(page)) if not (ROOT / path).exists()
    ]

    assert missing == []


@by_page
def test_every_setting_exists(page):
    named = set(_SETTING.findall(text_of(page)))

    assert named <= settings.ENVIRONMENT_NAMES | _NO_SETTINGS


@pytest.mark.parametrize("command", OUR_COMMANDS)
def test_every_command_of_ours_is_described(command):
    assert f"`{command}" in OPERATIONS or f"manage.py {command}" in OPERATIONS


@pytest.mark.parametrize("job", [job.name for job in schedules.SCHEDULES])
def test_every_background_job_is_described(job):
    assert f"| `{job}` |" in OPERATIONS


def test_every_number_of_a_check_is_explained():
    used = {
        number
        for path in SOURCES
        for number in re.findall(r'id="(claudeproxy\.[EW]\d+)"', path.read_text())
    }

    assert {number for number in used if f"| `{number}` |" not in OPERATIONS} == set()


def test_the_readme_leads_to_every_page():
    missing = [
        page.name
        for page in ROOT.glob("docs/*.md")
        if f"docs/{page.name}" not in text_of(ROOT / "README.md")
    ]

    assert missing == []
