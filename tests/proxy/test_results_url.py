import json

import pytest

from proxy import results_url

BASE = "https://claude.example:4000"
OURS = f"{BASE}/v1/messages/batches/msgbatch_1/results"


def rewritten(batch: bytes) -> bytes:
    return results_url.rewritten(batch, "msgbatch_1", BASE)


def test_the_address_of_results_becomes_ours_and_no_other_byte_changes():
    before = b'{"id": "msgbatch_1",\n  "results_url" :\t"https://up/x", "n": 1e2}'
    after = f'{{"id": "msgbatch_1",\n  "results_url" :\t"{OURS}", "n": 1e2}}'

    assert rewritten(before) == after.encode()


@pytest.mark.parametrize(
    "url", ["", 'https://up/a"b\\c', "https:\\/\\/up", "https://up/\u00e9", "x" * 9999]
)
def test_whatever_the_address_was_it_is_replaced_whole(url):
    batch = json.loads(rewritten(json.dumps({"results_url": url, "b": [1]}).encode()))

    assert batch == {"results_url": OURS, "b": [1]}


@pytest.mark.parametrize(
    "batch",
    [
        b'{"results_url": null}',
        b'{"id": "msgbatch_1"}',
        b'{"note": "\\"results_url\\": \\"https://up\\""}',
        b'{"a\\"results_url": "https://up"}',
        b'{"results_urls": "https://up"}',
        b"no JSON",
        b"",
    ],
)
def test_what_is_no_address_of_results_stays(batch):
    assert rewritten(batch) == batch


def test_an_id_cannot_leave_its_segment():
    after = results_url.rewritten(b'{"results_url": "x"}', 'a/../b"?#', BASE)

    url = json.loads(after)["results_url"]
    assert url == f"{BASE}/v1/messages/batches/a%2F..%2Fb%22%3F%23/results"
