import pytest

from proxy.record import End
from usage.outcome import EndReason, Outcome, outcome_of


def test_every_end_of_the_way_of_a_request_is_known():
    assert {end.value for end in End} | {"crashed"} == set(EndReason.values)


@pytest.mark.parametrize(
    ("reason", "status", "outcome"),
    [
        ("complete", 200, Outcome.SERVED),
        ("complete", 404, Outcome.REFUSED),
        ("complete", 529, Outcome.FAILED),
        ("rejected", 401, Outcome.REFUSED),
        ("rejected", 503, Outcome.FAILED),
        ("client_gone", 499, Outcome.GONE),
        ("truncated", 200, Outcome.FAILED),
        ("drained", 200, Outcome.FAILED),
        ("crashed", 0, Outcome.FAILED),
    ],
)
def test_every_end_has_one_outcome(reason, status, outcome):
    assert outcome_of(EndReason(reason), status) is outcome
