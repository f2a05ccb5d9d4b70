"""What Claude Code says that things cost, as it printed it.

Each figure is the `total_cost_usd` of a run of `claude -p` whose answers had this
usage, rounded to a billionth. `tests/end_to_end/test_claude_code.py` runs it again.
"""

from dataclasses import dataclass
from typing import Any

VERSION = "2.1.330"

UNPRICED = "unpriced"

Usage = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A run: the usage of each of its answers, and what it came to in US dollars.

    `ours` is what the gateway says, in the few cases where that is something else.
    """

    name: str
    model: str
    answers: tuple[Usage, ...]
    dollars: str
    ours: str = ""

    def __str__(self) -> str:
        return f"{self.model}-{self.name}".replace(" ", "-")


def used(
    prompt: int,
    output: int,
    *,
    read: int = 0,
    write_5m: int = 0,
    write_1h: int = 0,
    **more: Any,
) -> Usage:
    """The usage of an answer, with nothing left to guess."""
    return {
        "input_tokens": prompt,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": write_5m,
            "ephemeral_1h_input_tokens": write_1h,
        },
        **more,
    }


def run(prompt: int, output: int, kind: str = "message", **more: Any) -> Usage:
    """One of the runs that an answer is made of."""
    return {"type": kind, **used(prompt, output), **more}


def _searched(times: int) -> Usage:
    return {"server_tool_use": {"web_search_requests": times, "web_fetch_requests": 1}}


_TWO_RUNS = [run(60_000, 20), run(60_000, 30)]
_OTHER_RUNS = [run(60_000, 20), run(50_000, 30)]
_ADVICE = run(1_000, 70, "advisor_message", model="claude-opus-5-5")
_UNSPLIT = {"cache_creation_input_tokens": 1_000, "cache_creation": None}
_HALF_SPLIT = {"cache_creation_input_tokens": 1_000}
_OVER_SPLIT = {"cache_creation_input_tokens": 0}

# Every class of tokens, and searches on top.
_ALL = used(1_001, 103, read=70_001, write_5m=5_005, write_1h=7_007, **_searched(3))
_FAST = used(1_001, 103, read=70_001, write_5m=5_005, write_1h=7_007, speed="fast")

_EVERY_CLASS = {
    "claude-fable-5-2": "0.2182902",
    "claude-mythos-5-2": "0.2182902",
    "claude-fable-5-1": "0.26536275",
    "claude-mythos-5-1": "0.26536275",
    "claude-fable-5": "0.3178635",
    "claude-mythos-5": "0.3178635",
    "claude-opus-5-5": "0.1311452",
    "claude-opus-5": "0.17393175",
    "claude-opus-4-8": "0.17393175",
    "claude-opus-4-7": "0.17393175",
    "claude-opus-4-6": "0.17393175",
    "claude-opus-4-5": "0.17393175",
    "claude-opus-4-5-20251101": "0.17393175",
    "claude-opus-4": "0.46179525",
    "claude-sonnet-5-5": "0.0805726",
    "claude-sonnet-5": "0.0875727",
    "claude-sonnet-4-6": "0.11635905",
    "claude-sonnet-4-5": "0.11635905",
    "claude-sonnet-4-5-20250929": "0.11635905",
    "claude-sonnet-4": "0.11635905",
    "claude-sonnet-4-0": "0.11635905",
    "claude-3-7-sonnet": "0.11635905",
    "claude-3-5-sonnet": "0.11635905",
    "claude-haiku-5-5": "0.032878635",
    "claude-haiku-4-5": "0.05878635",
    "claude-haiku-4-5-20251001": "0.05878635",
    "claude-3-5-haiku": "0.05302908",
}
_EVERY_CLASS_FAST = {
    "claude-fable-5-2": "0.3765804",
    "claude-mythos-5-2": "0.3765804",
    "claude-opus-5-5": "0.2022904",
    "claude-opus-5": "0.2878635",
    "claude-opus-4-8": "0.2878635",
    "claude-opus-4-7": "0.8635905",
    "claude-opus-4-6": "0.8635905",
}

AGREED = [
    *(
        Case("every class", model, (_ALL,), dollars)
        for model, dollars in _EVERY_CLASS.items()
    ),
    *(
        Case("fast", model, (_FAST,), dollars)
        for model, dollars in _EVERY_CLASS_FAST.items()
    ),
    Case("plain", "claude-opus-5-5", (used(20, 10),), "0.00028"),
    Case(
        "two turns",
        "claude-sonnet-5-5",
        (used(11, 5), used(23, 7, read=1_001)),
        "0.0002881",
    ),
    Case("100k exactly", "claude-haiku-5-5", (used(100_000, 7),), "0.0100035"),
    Case("one above 100k", "claude-haiku-5-5", (used(100_001, 7),), "0.050018"),
    Case(
        "above 100k by its cache",
        "claude-haiku-5-5",
        (used(1, 7, read=50_000, write_5m=30_000, write_1h=20_000),),
        "0.041268",
    ),
    Case(
        "above and below in turn",
        "claude-haiku-5-5",
        (used(100_001, 7), used(99_999, 7)),
        "0.0600214",
    ),
    Case(
        "runs below 100k that add up",
        "claude-haiku-5-5",
        (used(120_000, 50, iterations=_TWO_RUNS),),
        "0.012025",
    ),
    Case(
        "in the US",
        "claude-opus-5-5",
        (used(999, 501, inference_geo="us"),),
        "0.0154176",
    ),
    Case(
        "anywhere",
        "claude-opus-5-5",
        (used(999, 501, inference_geo="global"),),
        "0.014016",
    ),
    Case(
        "in the US with searches",
        "claude-sonnet-5-5",
        (used(999, 501, inference_geo="us", **_searched(2)),),
        "0.0277088",
    ),
    Case(
        "fast in the US",
        "claude-opus-4-6",
        (used(20, 10, write_5m=1_000, inference_geo="us", speed="fast"),),
        "0.04356",
    ),
    Case(
        "above 100k in the US",
        "claude-haiku-5-5",
        (used(90_000, 500, read=10_002, inference_geo="us"),),
        "0.05142511",
    ),
    Case("unsplit write", "claude-opus-5-5", (used(10, 5) | _UNSPLIT,), "0.00514"),
    Case(
        "half split write",
        "claude-opus-5-5",
        (used(10, 5, write_5m=100, write_1h=200) | _HALF_SPLIT,),
        "0.00574",
    ),
    Case(
        "write only in the split",
        "claude-opus-5-5",
        (used(10, 5, write_5m=100, write_1h=200) | _OVER_SPLIT,),
        "0.00224",
    ),
    Case(
        "advised by another model",
        "claude-sonnet-5-5",
        (used(300, 50, iterations=[run(100, 20), _ADVICE, run(200, 30)]),),
        "0.0065",
    ),
]

DIFFERENT = [
    Case(
        "compacted",
        "claude-opus-5-5",
        (used(100, 50, iterations=[run(1_000, 70, "compaction"), run(100, 50)]),),
        "0.0014",
        ours="0.0068",
    ),
    Case(
        "runs that do not add up",
        "claude-haiku-5-5",
        (used(120_000, 50, iterations=_OTHER_RUNS),),
        "0.060125",
        ours="0.055125",
    ),
    Case(
        "fast without such a price",
        "claude-haiku-5-5",
        (used(20, 10, speed="fast"),),
        "0.000007",
        ours=UNPRICED,
    ),
    Case("unknown", "claude-opus-9", (used(20, 10),), "0.00028", ours=UNPRICED),
    Case(
        "unknown to it", "claude-3-sonnet", (used(20, 10),), "0.00028", ours="0.00021"
    ),
    Case(
        "at the price of batches",
        "claude-opus-5-5",
        (used(20, 10, service_tier="batch"),),
        "0.00028",
        ours="0.00014",
    ),
]

CASES = [*AGREED, *DIFFERENT]
