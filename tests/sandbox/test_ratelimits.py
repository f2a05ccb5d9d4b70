"""The buckets behind the rate-limit headers."""

import pytest

from claudeproxy.sandbox.ratelimits import Bucket, RateLimits

NOW = 1_800_000_000.0


def test_a_bucket_starts_full() -> None:
    assert Bucket("requests", 60).level(NOW) == 60


def test_what_is_spent_comes_back_evenly() -> None:
    bucket = Bucket("requests", 60)
    bucket.spend(30, NOW)
    assert bucket.level(NOW) == 30
    assert bucket.level(NOW + 10) == 40
    assert bucket.level(NOW + 1000) == 60


def test_a_bucket_never_holds_less_than_nothing() -> None:
    bucket = Bucket("requests", 60)
    bucket.spend(1000, NOW)
    assert bucket.level(NOW) == 0


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    bucket = Bucket("requests", 60)
    bucket.spend(30, NOW)
    assert bucket.level(NOW - 10) == 30


@pytest.mark.parametrize(("spent", "remaining"), [(400, b"10000"), (600, b"9000")])
def test_tokens_are_rounded_to_thousands(spent: int, remaining: bytes) -> None:
    bucket = Bucket("tokens", 10_000, 1_000)
    bucket.spend(spent, NOW)
    headers = dict(bucket.headers(NOW))
    assert headers[b"anthropic-ratelimit-tokens-remaining"] == remaining


def test_reset_is_when_the_bucket_is_full_again() -> None:
    bucket = Bucket("requests", 60)
    bucket.spend(30, NOW)
    headers = dict(bucket.headers(NOW))
    assert headers[b"anthropic-ratelimit-requests-reset"] == b"2027-01-15T08:00:30Z"


def test_a_request_is_charged_to_every_family() -> None:
    limits = RateLimits()
    limits.spend(NOW, input_tokens=5_000, output_tokens=2_000)
    headers = dict(limits.headers(NOW))
    remaining = {
        name.split(b"-", 2)[2]: int(value)
        for name, value in headers.items()
        if name.endswith(b"remaining")
    }
    assert remaining == {
        b"requests-remaining": 999,
        b"tokens-remaining": 533_000,
        b"input-tokens-remaining": 445_000,
        b"output-tokens-remaining": 88_000,
    }
