"""What a browser opens is served by the same process, within limits of its own."""

import httpx
import pytest

from tests.end_to_end.gateway import Gateway

pytestmark = pytest.mark.processes

PIECE = b"x" * 64 * 1024


def test_the_login_page_is_served_with_its_style(gateway: Gateway) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}") as client:
        page = client.get("/admin/login/")
        style = client.get("/static/claudeproxy/theme.css")

    assert page.status_code == style.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert style.headers["content-type"].startswith("text/css")


def test_the_front_door_leads_to_the_admin(gateway: Gateway) -> None:
    answer = httpx.get(f"http://127.0.0.1:{gateway.port}/")

    assert (answer.status_code, answer.headers["location"]) == (302, "/admin/")


@pytest.mark.parametrize("path", ["/admin/login/", "/api/accounts"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_that_no_form_needs_is_refused(
    gateway: Gateway, path: str, is_declared: bool
) -> None:
    pieces = [PIECE] * 80  # 5 MB
    answer = httpx.post(
        f"http://127.0.0.1:{gateway.port}{path}",
        content=b"".join(pieces) if is_declared else iter(pieces),
        headers={"content-type": "application/octet-stream"},
    )

    assert answer.status_code == 413
