import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage import histogram

spans = st.lists(
    st.floats(0, 1e9, allow_nan=False, allow_infinity=False), min_size=1, max_size=60
)


def counts(values):
    return Counter(map(histogram.bucket_of, values))


@given(st.floats(-1e3, 1e12, allow_nan=False))
def test_every_span_has_its_bucket(span):
    bucket = histogram.bucket_of(span)

    assert 0 <= bucket < len(histogram.BOUNDS)
    assert bucket == 0 or histogram.BOUNDS[bucket] <= span


@given(spans, spans)
def test_histograms_add_up(left, right):
    assert counts(left) + counts(right) == counts(left + right)


@given(spans, spans)
def test_sqlite_adds_up_histograms_and_single_buckets(left, right):
    adding = histogram.Adding()
    adding.step(None)
    for bucket in map(histogram.bucket_of, left):
        adding.step(bucket)
    adding.step(json.dumps(counts(right)))

    found = json.loads(adding.finalize())
    assert {int(bucket): n for bucket, n in found.items()} == counts(left + right)


def test_the_sum_of_no_histogram_is_an_empty_one():
    assert histogram.Adding().finalize() == "{}"


@given(
    st.lists(st.floats(1, 3e6), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.95, 0.99]),
)
def test_a_percentile_is_at_most_one_bucket_off(values, share):
    found = histogram.percentile(counts(values), share)
    rank = max(1, -(-len(values) * round(share * 100) // 100))
    exact = sorted(values)[rank - 1]

    assert exact / 1.16 <= found <= exact * 1.16


def test_nothing_has_no_percentile():
    assert histogram.percentile({}, 0.5) is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_are_the_ends_of_the_outer_buckets(share):
    found = histogram.percentile({3: 1, 9: 1}, share)

    assert found == histogram.BOUNDS[10 if share else 3]
