from itertools import combinations

import pytest

from proxy.model_groups import group_of, line_of

GROUPS = [
    [
        *("claude-opus-4-5-20251101", "claude-opus-4-5", "claude-opus-4-6"),
        *("claude-opus-4-7", "claude-opus-4-8"),
    ],
    ["claude-opus-5"],
    ["claude-opus-5-5", "claude-opus-5-5-20260901"],
    [
        *("claude-sonnet-4-20250514", "claude-sonnet-4-0", "claude-sonnet-4-5"),
        *("claude-sonnet-4-5-20250929", "claude-sonnet-4-6", "claude-sonnet-4-9"),
    ],
    ["claude-sonnet-5"],
    ["claude-sonnet-5-5"],
    ["claude-fable-5", "claude-fable-5-1", "claude-fable-5-1-20260701"],
    ["claude-fable-5-2"],
    ["claude-mythos-preview", "claude-mythos-5", "claude-mythos-5-2-20261001"],
    ["claude-haiku-4-5", "claude-haiku-4-5-20251001"],
    ["claude-haiku-5-5"],
    # Unknown ones are each their own.
    ["claude-opus-4-9"],
    ["claude-sonnet-40"],
    ["claude-mythosaur"],
    ["anything at all"],
    ["x-1234567"],
    [""],
]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_models_of_a_group_share_a_limit(group):
    assert len({group_of(model) for model in group}) == 1


def test_models_of_different_groups_do_not():
    for one, other in combinations(GROUPS, 2):
        assert group_of(one[0]) != group_of(other[0])


def test_names_that_are_too_long_to_be_models_are_cut():
    assert group_of("x" * 300) == group_of("x" * 10_000)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("claude-opus-5-5", "opus"),
        ("claude-3-opus-20240229", "opus"),
        ("claude-sonnet-4-5-20250929", "sonnet"),
        ("claude-haiku-5-5", None),
        ("claude-magnopus", None),
        ("", None),
    ],
)
def test_a_line_is_a_word_of_the_id(model, line):
    assert line_of(model) == line
