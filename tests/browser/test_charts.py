"""Charts as they are seen: in both colour schemes, on a wide screen and on a phone."""

from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from tests.browser.accessibility import faults
from tests.claudeproxy import chart_examples

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

POLICY = "default-src 'self'; img-src 'self' data:"


@pytest.fixture
def show(open_page: Any, live_server: LiveServer) -> Any:
    def answer(route: Route) -> None:
        route.fulfill(
            body=chart_examples.page(),
            content_type="text/html; charset=utf-8",
            headers={"content-security-policy": POLICY},
        )

    def window(**options: Any) -> Page:
        page: Page = open_page(**options)
        page.route("**/examples/", answer)
        page.goto("/examples/")
        return page

    return window


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault_with_a_chart(
    show: Any, color_scheme: str, width: int
) -> None:
    page = show(color_scheme=color_scheme, viewport={"width": width, "height": 844})
    for numbers in page.locator(".chart-data summary").all():
        numbers.click()
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_every_colour_stands_out_from_the_page(show: Any, color_scheme: str) -> None:
    page = show(color_scheme=color_scheme)
    ratios = page.evaluate(
        """() => {
            const probe = document.body.appendChild(document.createElement("i"));
            const canvas = document.createElement("canvas").getContext(
                "2d", {willReadFrequently: true});
            const light = (color) => {
                probe.style.color = color;
                canvas.fillStyle = getComputedStyle(probe).color;
                canvas.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data]
                    .map((it) => it / 255)
                    .map((it) => it <= 0.04045 ? it / 12.92
                        : ((it + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const looks = [1, 2, 3, 4, 5, 6, "good", "warning", "bad", "idle"];
            const page = light("var(--body-bg)");
            return looks.map((look) => {
                const ink = light(`var(--chart-${look})`);
                return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
            });
        }"""
    )
    assert len(ratios) == 10
    assert min(ratios) >= 3


def test_words_keep_their_size_on_a_phone_and_do_not_touch(show: Any) -> None:
    page = show(viewport={"width": 390, "height": 844})
    for labels in page.locator(".chart-plot").all():
        boxes = [
            label.bounding_box()
            for label in labels.locator(".chart-label:visible").all()
        ]
        for left, right in pairwise(boxes):
            assert left["x"] + left["width"] < right["x"]
    size = page.locator(".chart-label").first.evaluate(
        "element => getComputedStyle(element).fontSize"
    )
    assert size == "12px"


def test_a_narrow_chart_names_fewer_times_than_a_wide_one(show: Any) -> None:
    page = show(viewport={"width": 1280, "height": 844})
    labels = page.locator(".chart-plot").nth(1).locator(".chart-label:visible")
    wide = labels.count()
    page.set_viewport_size({"width": 390, "height": 844})
    assert 1 < labels.count() < wide


def test_numbers_stay_open_and_scrolled_when_a_chart_is_renewed(show: Any) -> None:
    page = show()
    page.clock.install()
    page.reload()
    chart = page.get_by_role("figure", name="Tokens by class")
    chart.get_by_text("Numbers").click()
    table = chart.locator(".chart-table")
    table.evaluate("element => element.scrollTop = 120")
    renewed = chart_examples.page().replace("2,455,000", "9,455,000")
    page.route("**/examples/", lambda route: route.fulfill(body=renewed))
    page.clock.fast_forward(30_000)
    expect(table).to_contain_text("9,455,000")
    assert table.evaluate("element => element.scrollTop") == 120
    expect(page.locator("#tokens-data")).to_have_attribute("open", "")
    expect(page.locator("#requests-data")).not_to_have_attribute("open", "")


def test_a_chart_is_an_image_with_words_and_a_table_of_its_numbers(show: Any) -> None:
    page = show()
    chart = page.get_by_role("figure", name="Requests by outcome")
    image = chart.get_by_role("img", name="Requests by outcome 1,251 in all")
    expect(image).to_be_visible()
    expect(chart.get_by_role("table")).to_have_count(0)
    chart.get_by_text("Numbers").click()
    expect(chart.get_by_role("row")).to_have_count(25)
    expect(chart.get_by_role("columnheader", name="failed")).to_be_visible()
