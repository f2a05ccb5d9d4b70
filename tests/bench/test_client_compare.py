"""Every client in the comparison really gets the answer it is measured by."""

import pytest

from bench import client_compare, upstream, wire
from tests.bench.test_load import listening


@pytest.mark.parametrize("name", client_compare.CONTENDERS)
async def test_a_client_gets_the_whole_answer(name):
    async with listening(upstream.Upstream) as port:
        contender = client_compare.CONTENDERS[name]
        async with contender(f"http://127.0.0.1:{port}/v1/messages") as send:
            assert await send() == wire.ANSWER
            assert await client_compare.send_until(send, 2, 0.02) > 0


def test_the_table_has_a_line_for_each_client():
    text = client_compare.render({"a client": {"20": 0.123, "300": 1.5}})

    assert text.splitlines()[-1].split("|")[1:4] == [
        " a client           ",
        "        0.12 ",
        "         1.50 ",
    ]
