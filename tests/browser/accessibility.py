"""What axe-core finds wrong with a page."""

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships no types
from playwright.sync_api import Page

_OPTIONS = {
    # It would add styles to the page, which the page's policy forbids.
    "preload": False,
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
}


def faults(page: Page) -> list[str]:
    """Each rule that the page breaks, with the elements that do."""
    found = Axe().run(page, options=_OPTIONS).response["violations"]
    return [
        f"{fault['id']}: {[node['html'][:160] for node in fault['nodes']]}"
        for fault in found
    ]
