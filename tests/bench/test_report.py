import pytest

from bench.report import (
    COLUMNS,
    GOALS,
    Goal,
    Report,
    Table,
    disturbance,
    markdown_table,
    number,
    render_goals,
    render_page,
    render_table,
    render_terminal,
)

TITLES = {"gateway": "Claude Proxy", "relay": "bare relay"}


def report(*tables, missing=None):
    return Report(
        command="./run bench --quick",
        date="2026-01-31",
        machine={"Processor": "Abacus 9", "Cores": "2"},
        placement="Targets ran on core 0.",
        titles=TITLES,
        missing=missing or {},
        tables=list(tables),
    )


def json_table(**figures):
    return Table("json", "Small JSON, 10 callers at once", {"gateway": figures})


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (None, 0, "-"),
        (0.0, 0, "0"),
        (1234.5678, 0, "1,235"),
        (1234.5678, 2, "1,234.57"),
        (-0.25, 2, "-0.25"),
    ],
)
def test_numbers_are_set_with_thousands_and_digits(value, digits, expected):
    assert number(value, digits) == expected


def test_a_table_is_aligned_and_is_markdown():
    text = markdown_table(["", "n"], [["relay", "1"], ["x", "1,000"]])

    assert text.splitlines() == [
        "|       |     n |",
        "| ----- | ----: |",
        "| relay |     1 |",
        "| x     | 1,000 |",
    ]


def test_a_scenario_shows_a_line_for_each_target_and_a_dash_for_no_figure():
    text = render_table(json_table(cpu_us=450.4), TITLES)

    *_, row = text.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "Claude Proxy"
    assert cells.count("450") == 1
    assert cells.count("-") == len(COLUMNS["json"]) - 1


def test_a_failure_is_shown_below_its_table_without_its_log():
    table = json_table(cpu_us=1.0)
    table.failures["relay"] = "status 503: busy\nTraceback"

    text = render_table(table, TITLES)

    assert "bare relay failed" in text
    assert "status 503: busy" in text
    assert "Traceback" not in text
    assert report(table).has_failed


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("at most", "json", "cpu_us", 900), 900, True),
        (Goal("at most", "json", "cpu_us", 900), 900.1, False),
        (Goal("at least", "json", "per_second", 1000, at_least=True), 1000, True),
        (Goal("at least", "json", "per_second", 1000, at_least=True), 999, False),
    ],
)
def test_a_goal_is_met_at_its_limit_and_missed_beyond(goal, value, met):
    assert goal.is_met(value) is met


def test_a_goal_reads_the_table_that_its_title_names():
    one = Table("json", "Small JSON, 1 caller at once", {"gateway": {"cpu_us": 1.0}})
    goal = Goal("cpu", "json", "cpu_us", 900, ", 10 callers")

    assert goal.measured([one, json_table(cpu_us=2.0)], "gateway") == 2.0
    assert goal.measured([one], "gateway") is None


def test_goals_say_met_missed_and_not_measured():
    lines = render_goals([json_table(cpu_us=450.0, times_relay=9.0)]).splitlines()[2:]

    assert "450 |          met" in lines[0]
    assert "MISSED" in lines[1]
    assert all("not measured" in line for line in lines[2:])


def test_a_goal_that_was_not_measured_counts_as_missed():
    missed = report(json_table(cpu_us=450.0, times_relay=3.0)).missed_goals()

    assert missed == list(GOALS[2:])


def test_every_goal_is_about_a_column_that_is_shown():
    for goal in GOALS:
        assert goal.key in {column.key for column in COLUMNS[goal.kind]}


def test_the_terminal_shows_tables_goals_and_what_is_missing():
    text = render_terminal(
        report(json_table(cpu_us=1.0), missing={"litellm": "not installed"})
    )

    assert "Small JSON, 10 callers at once" in text
    assert "Goals of the gateway" in text
    assert "litellm: not installed" in text


@pytest.mark.parametrize(("percent", "warns"), [(0, False), (10, False), (11, True)])
def test_other_work_on_the_machine_is_told_and_warned_of(percent, warns):
    said = disturbance(percent)

    assert f"{percent} % of a core" in said
    assert ("worse" in said) is warns


def test_the_page_holds_figures_machine_command_and_date():
    template = "$goals\n$figures\n$facts\n$placement\n$disturbance"
    text = render_page(
        report(json_table(cpu_us=450.0), missing={"nginx": "not installed"}), template
    )

    for part in (
        "### Small JSON, 10 callers at once",
        "450",
        "- Processor: Abacus 9",
        "- Command: `./run bench --quick`",
        "- Date: 2026-01-31",
        "Targets ran on core 0.",
        "Not measured here: nginx (not installed).",
    ):
        assert part in text
