import zoneinfo
from datetime import UTC, timedelta

import pytest

from claudeproxy.environment import Environment, Problem


@pytest.fixture
def environment(tmp_path):
    return Environment()


def only_problem(environment):
    (problem,) = environment.problems
    return problem


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("on", True),
        ("TRUE", True),
        ("yes", True),
        ("1", True),
        (" on ", True),
        ("off", False),
        ("False", False),
        ("no", False),
        ("0", False),
        ("", True),
    ],
)
def test_a_flag_is_read(environment, monkeypatch, raw, expected):
    monkeypatch.setenv("T_FLAG", raw)

    assert environment.flag("T_FLAG", default=True) is expected
    assert environment.problems == []


@pytest.mark.parametrize("raw", ["UTC", "Europe/Berlin", " Asia/Kolkata ", "EST5EDT"])
def test_a_time_zone_is_read(environment, monkeypatch, raw):
    monkeypatch.setenv("T", raw)

    assert str(environment.time_zone("T")) == raw.strip()
    assert environment.problems == []


def test_utc_needs_no_list_of_zones(environment, monkeypatch):
    monkeypatch.setenv("T", "UTC")
    zoneinfo.reset_tzpath(to=())
    try:
        assert environment.time_zone("T") is UTC
    finally:
        zoneinfo.reset_tzpath()

    assert environment.problems == []


@pytest.mark.parametrize(
    ("raw", "example"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("america/new_york", "America/New_York"),
        ("utc", "UTC"),
        ("Utc", "UTC"),
        ("Mars/Phobos", "Europe/Berlin"),
        ("UTC+2", "Europe/Berlin"),
        ("+02:00", "Europe/Berlin"),
        ("Europe", "Europe/Berlin"),
        ("/etc/localtime", "Europe/Berlin"),
        ("../zoneinfo/UTC", "Europe/Berlin"),
        ("localtime", "Europe/Berlin"),
        ("right/Europe/Berlin", "Europe/Berlin"),
        ("zone.tab", "Europe/Berlin"),
        ("\u00e4", "Europe/Berlin"),
    ],
)
def test_a_time_zone_that_is_not_known_is_noted_with_an_example(
    environment, monkeypatch, raw, example
):
    monkeypatch.setenv("T", raw)

    assert environment.time_zone("T") is UTC
    message = only_problem(environment).message
    assert message.startswith(f"{raw!r} is no time zone")
    assert message.endswith(f"such as {example}")


@pytest.mark.parametrize(
    ("read", "raw", "default", "words"),
    [
        (lambda e: e.flag("T", default=False), "maybe", False, "neither on nor off"),
        (lambda e: e.number("T", 4, low=1, high=9), "four", 4, "not a whole number"),
        (lambda e: e.number("T", 4, low=1, high=9), "4.0", 4, "not a whole number"),
        (lambda e: e.number("T", 4, low=1, high=9), "0", 4, "use 1 to 9"),
        (lambda e: e.number("T", 4, low=1, high=9), "10", 4, "use 1 to 9"),
        (lambda e: e.duration("T", "5m"), "5", timedelta(minutes=5), "not a duration"),
        (
            lambda e: e.duration("T", "5m"),
            "0s",
            timedelta(minutes=5),
            "use 1ms or more",
        ),
        (
            lambda e: e.duration("T", "5m"),
            "999999d",
            timedelta(minutes=5),
            "use 366d or less",
        ),
        (
            lambda e: e.duration("T", "5m", step="1m"),
            "90s",
            timedelta(minutes=5),
            "use a multiple of 1m",
        ),
        (lambda e: e.choice("T", "a", ("a", "b")), "c", "a", "use one of a, b"),
        (lambda e: e.choice("T", "a", ("a", "b")), "A", "a", "use one of a, b"),
    ],
)
def test_a_wrong_value_is_noted_and_the_default_stands_in(
    environment, monkeypatch, read, raw, default, words
):
    monkeypatch.setenv("T", raw)

    assert read(environment) == default
    assert only_problem(environment).variable == "T"
    assert words in only_problem(environment).message
    assert raw in only_problem(environment).message


@pytest.mark.parametrize(
    ("read", "raw", "expected"),
    [
        (lambda e: e.text("T", "x"), " text ", "text"),
        (lambda e: e.text("T", "x"), "", "x"),
        (lambda e: e.text("T", "x"), "a=b#c", "a=b#c"),
        (lambda e: e.items("T", ["x"]), "a, b,,c ,", ["a", "b", "c"]),
        (lambda e: e.items("T", ["x"]), "", ["x"]),
        (lambda e: e.number("T", 4, low=0, high=9), "0", 0),
        (lambda e: e.duration("T", "5m", low="0s"), "0s", timedelta()),
        (lambda e: e.duration("T", "5m"), "366d", timedelta(days=366)),
        (lambda e: e.duration("T", "5m", step="1m"), "120s", timedelta(minutes=2)),
        (lambda e: e.choice("T", "a", ("a", "b")), "b", "b"),
    ],
)
def test_a_right_value_is_read(environment, monkeypatch, read, raw, expected):
    monkeypatch.setenv("T", raw)

    assert read(environment) == expected
    assert environment.problems == []


def test_a_secret_may_begin_with_a_dollar_sign(environment, monkeypatch):
    monkeypatch.setenv("T_SECRET", "$HOME_of_nobody")

    assert environment.text("T_SECRET") == "$HOME_of_nobody"


def test_all_mistakes_are_kept(environment, monkeypatch):
    monkeypatch.setenv("T_ONE", "x")
    monkeypatch.setenv("T_TWO", "x")
    environment.flag("T_ONE", default=False)
    environment.number("T_TWO", 1, low=0, high=1)

    assert [problem.variable for problem in environment.problems] == ["T_ONE", "T_TWO"]


def test_every_variable_asked_for_is_known(environment):
    environment.text("T_SET_NOWHERE")
    environment.flag("T_FLAG", default=False)

    assert environment.names == {"T_SET_NOWHERE", "T_FLAG"}


def test_a_value_may_stand_in_a_file(environment, monkeypatch, tmp_path):
    (tmp_path / "secret").write_text("from the file\n")
    monkeypatch.setenv("T_IN_A_FILE", "from the environment")
    monkeypatch.setenv("T_IN_A_FILE_FILE", str(tmp_path / "secret"))

    assert environment.text("T_IN_A_FILE") == "from the file"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_noted(
    environment, monkeypatch, tmp_path, content
):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("T_NO_FILE_FILE", str(path))

    assert environment.text("T_NO_FILE", "default") == "default"
    assert only_problem(environment).variable == "T_NO_FILE"
    assert "T_NO_FILE_FILE" in only_problem(environment).message


def test_the_process_wins_over_the_env_file(environment, monkeypatch, tmp_path):
    monkeypatch.setenv("T_BOTH", "process")
    monkeypatch.setenv("T_ONLY_FILE", "")  # restored after the test
    monkeypatch.delenv("T_ONLY_FILE")
    path = tmp_path / ".env"
    path.write_text("# a comment\nT_BOTH=file\nT_ONLY_FILE='of the file'\n")
    environment.load_file(path)

    assert environment.text("T_BOTH") == "process"
    assert environment.text("T_ONLY_FILE") == "of the file"


def test_no_env_file_is_no_fault(environment, tmp_path):
    environment.load_file(tmp_path / ".env")

    assert environment.problems == []


def test_blanks_comments_and_a_byte_order_mark_are_no_fault(
    environment, monkeypatch, tmp_path
):
    for name in ("T_FIRST", "T_SECOND"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    path = tmp_path / ".env"
    text = "T_FIRST=1\r\n  \r\n  # more\r\nexport T_SECOND='2'\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    environment.load_file(path)

    assert environment.problems == []
    assert environment.text("T_FIRST") == "1"
    assert environment.text("T_SECOND") == "2"


def test_a_line_that_is_no_assignment_is_told_by_its_number_alone(
    environment, monkeypatch, tmp_path, caplog, capfd
):
    monkeypatch.setenv("T_RIGHT", "")
    monkeypatch.delenv("T_RIGHT")
    path = tmp_path / ".env"
    path.write_text("T_KEY = s3cret\nT_RIGHT=1\ns3cret\nT_NUL=s3cret\0\n")
    with caplog.at_level("DEBUG"):
        environment.load_file(path)

    problem = only_problem(environment)
    assert problem == Problem(".env", "not of the form NAME=value: line 1, 3, 4")
    assert environment.text("T_RIGHT") == "1"
    assert "s3cret" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"T_KEY=\xff\xfe"), "no text in UTF-8"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels"),
    ],
    ids=["not UTF-8", "directory", "link to itself"],
)
def test_an_env_file_that_cannot_be_read_is_noted(environment, tmp_path, make, reason):
    make(tmp_path / ".env")
    environment.load_file(tmp_path / ".env")

    assert only_problem(environment).variable == ".env"
    assert reason in only_problem(environment).message


@pytest.mark.parametrize(
    ("raw", "engine", "name"),
    [
        ("sqlite:////srv/x.sqlite3", "django.db.backends.sqlite3", "/srv/x.sqlite3"),
        ("postgres://u:p@h:5432/n", "django.db.backends.postgresql", "n"),
        ("postgresql://u:p@h/n", "django.db.backends.postgresql", "n"),
    ],
)
def test_a_database_is_read(environment, monkeypatch, raw, engine, name):
    monkeypatch.setenv("T_DB", raw)
    database = environment.database("T_DB", "sqlite:////x")

    assert (database["ENGINE"], database["NAME"]) == (engine, name)


def test_a_password_is_decoded(environment, monkeypatch):
    monkeypatch.setenv("T_DB", "postgres://u:a%2Fb%3F@h/n")

    assert environment.database("T_DB", "sqlite:////x")["PASSWORD"] == "a/b?"


@pytest.mark.parametrize(
    "raw",
    [
        "s3cret",
        "mysql://u:s3cret@h/n",
        "postgres:u:s3cret@h",
        "postgres://u:s3cret/x@h/n",
        "postgres://u:s3cret?x@h/n",
        "postgres://u:s3cret@h:port/n",
        "postgres://u:s3cret@h:99999/n",
    ],
)
def test_a_wrong_database_is_noted_without_its_password(environment, monkeypatch, raw):
    monkeypatch.setenv("T_DB", raw)
    database = environment.database("T_DB", "sqlite:////x")

    assert database["NAME"] == "/x"
    assert only_problem(environment).variable == "T_DB"
    assert "s3cret" not in only_problem(environment).message


@pytest.mark.parametrize(
    "raw",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite://:memory:",
        "sqlite:///:memory:",
        "sqlite:///relative.db",
        "sqlite://host/relative.db",
        "sqlite:///file:x?mode=memory",
    ],
)
def test_a_database_that_processes_would_not_share_is_noted(
    environment, monkeypatch, raw
):
    monkeypatch.setenv("T_DB", raw)
    database = environment.database("T_DB", "sqlite:////x")

    assert database["NAME"] == "/x"
    assert "four slashes: sqlite:////" in only_problem(environment).message


def test_a_problem_is_a_plain_value():
    assert Problem("T", "x") == Problem("T", "x")
