"""What holds for the code as a whole, read from its source."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
PACKAGES = ("accounts", "claudeproxy", "clients", "proxy", "sessions_limit", "usage")
FILES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "migrations" not in path.parts
)
MODULES = sorted(
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
    if not module.name.endswith("__main__")
)
# Decide, and touch neither database nor network nor clock.
PURE = (
    "accounts.quota",
    "accounts.quota_display",
    "accounts.status",
    "claudeproxy.charts",
    "claudeproxy.dashboard.spans",
    "claudeproxy.dashboard.usage_charts",
    "claudeproxy.durations",
    "claudeproxy.figures",
    "claudeproxy.shapes",
    "clients.keys",
    "proxy.admission",
    "proxy.affinity",
    "proxy.endpoints",
    "proxy.facts",
    "proxy.headers",
    "proxy.listing",
    "proxy.results_url",
    "proxy.selection",
    "proxy.sightings",
    "proxy.sse",
    "sessions_limit.addresses",
    "sessions_limit.backends.holds",
    "sessions_limit.keys",
    "sessions_limit.references",
    "usage.days",
    "usage.entries",
    "usage.histogram",
    "usage.outcome",
    "usage.prices",
    "usage.rows",
    "usage.tally",
    "usage.tokens",
)
# The environment of this process is read in one place. Others may say which settings
# count, before those are there, or hand it on to a child.
ENVIRONMENT_IS_NAMED_IN = {
    "claudeproxy/asgi.py",
    "claudeproxy/demo.py",
    "claudeproxy/environment.py",
    "claudeproxy/handover.py",
    "claudeproxy/settings.py",
}


def names_in(path: Path) -> set[str]:
    """Every dotted name in a file: `os.environ`, `time.sleep`, imported names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    importlib.import_module(name)


def test_only_the_settings_read_the_environment():
    reading = {
        str(path.relative_to(ROOT))
        for path in FILES
        if names_in(path) & {"os.environ", "os.getenv", "environ"}
    }

    assert reading <= ENVIRONMENT_IS_NAMED_IN


@pytest.mark.parametrize("banned", ["datetime.utcnow", "datetime.datetime.utcnow"])
def test_times_are_aware(banned):
    assert [path for path in FILES if banned in names_in(path)] == []


def test_the_way_of_a_request_never_sleeps():
    on_the_way = [
        path
        for path in FILES
        if path.relative_to(ROOT).parts[0]
        in {"clients", "proxy", "sessions_limit", "usage"}
    ]

    assert [path for path in on_the_way if "time.sleep" in names_in(path)] == []


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_touches_nothing(name):
    names = names_in(ROOT / f"{name.replace('.', '/')}.py")
    roots = {found.partition(".")[0] for found in names}

    assert not roots & {"httpx", "aiohttp", "asyncio", "socket", "time", "os"}
    assert not {found for found in names if found.startswith("django.db.models.Model")}
    assert not {found for found in names if found.endswith((".now", ".monotonic"))}


@pytest.mark.parametrize("name", PURE)
def test_what_a_pure_module_offers_is_described(name):
    module = importlib.import_module(name)
    public = [
        value
        for key, value in vars(module).items()
        if not key.startswith("_")
        and inspect.isfunction(value)
        and value.__module__ == name
    ]

    assert module.__doc__
    assert [function.__name__ for function in public if not function.__doc__] == []
