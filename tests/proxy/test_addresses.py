from typing import Any

import pytest
from django.test import RequestFactory

from proxy import addresses


def base_url(host: str, **meta: Any) -> str:
    meta = {"HTTP_HOST": host, "SERVER_NAME": "10.0.0.7", "SERVER_PORT": "4000"} | meta
    return addresses.base_url(RequestFactory().get("/v1/files", **meta))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:4000", "127.0.0.1", "claude.example", "claude.example:8443"),
        *("[::1]:4000", "[fd00::7]", "gateway_1:4000"),
    ],
)
def test_it_is_where_the_caller_found_it(host):
    assert base_url(host) == f"http://{host}"


@pytest.mark.parametrize(
    "host", ["", "a/b", "user@host", "a b", "host:port", "a:1:2", "[", 'x"', "a" * 300]
)
def test_what_is_no_host_does_not_count(host):
    assert base_url(host) == "http://10.0.0.7:4000"


def test_a_proxy_in_front_says_https_if_it_is_believed(settings):
    assert base_url("localhost", HTTP_X_FORWARDED_PROTO="https") == "http://localhost"
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert base_url("localhost", HTTP_X_FORWARDED_PROTO="https") == "https://localhost"
