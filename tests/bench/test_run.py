"""One real run, as short as it can be: the bare relay beside the upstream itself."""

import argparse
import json

import pytest

from bench import __main__ as command
from bench.report import Report
from bench.scenarios import Plan
from bench.targets import LiteLLM

SHORT = Plan(
    rounds=1,
    seconds=0.1,
    concurrency=(2,),
    steady_seconds=0.1,
    paced_seconds=0.2,
    paced_slack_seconds=0.1,
    streams=5,
    starts=1,
    settle_seconds=0,
    rest_seconds=0.1,
)


@pytest.fixture
def result():
    return Report(command="./run bench", date="", machine={}, placement="", titles={})


def options(**given):
    defaults = {"only": list(command.PARTS), "targets": ["relay"], "quick": True}
    return argparse.Namespace(**(defaults | given))


def test_a_short_run_measures_all_scenarios_and_writes_them(result, tmp_path):
    command.measure(options(), SHORT, result)

    assert not result.has_failed
    kinds = [table.kind for table in result.tables]
    assert kinds == ["startup", "rest", "json", "steady", "stream", "paced"]
    for table in result.tables[2:]:
        assert list(table.rows) == ["direct", "relay"]
    json_row = result.tables[2].rows["relay"]
    assert json_row["times_relay"] == 1.0
    assert json_row["cpu_us"] > 0
    assert result.tables[5].rows["relay"]["delay_p99_ms"] > 0

    page, figures = tmp_path / "performance.md", tmp_path / "figures.json"
    command.write_files(argparse.Namespace(json=figures, write=page), result)
    assert "bare relay" in page.read_text()
    assert "$" not in page.read_text()
    assert json.loads(figures.read_text())["tables"][0]["kind"] == "startup"


def test_a_target_that_is_not_installed_is_named_and_left_out(result, monkeypatch):
    monkeypatch.setattr(LiteLLM, "missing", lambda: "not installed")

    command.measure(options(targets=["litellm"], only=[]), SHORT, result)

    assert result.missing == {"litellm": "not installed"}
    assert list(result.titles) == ["direct"]


@pytest.mark.parametrize("arguments", [["--only", "jason"], ["--targets", "a,relay"]])
def test_an_unknown_name_is_refused_with_the_known_ones(arguments, capsys):
    with pytest.raises(SystemExit):
        command.arguments().parse_args(arguments)

    assert "is not one of" in capsys.readouterr().err


def test_names_are_split_at_commas():
    parsed = command.arguments().parse_args(["--only", "json, paced"])

    assert parsed.only == ["json", "paced"]
