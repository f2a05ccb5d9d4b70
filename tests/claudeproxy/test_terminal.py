import getpass
import io

from claudeproxy import terminal


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_piped_secret_is_the_first_line(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\nrest\n"))

    assert terminal.read_secret("Key: ") == "secret\n"


def test_a_typed_secret_is_asked_for_without_echo(monkeypatch):
    monkeypatch.setattr("sys.stdin", Tty("echoed"))
    monkeypatch.setattr(getpass, "getpass", lambda prompt: f"typed after {prompt}")

    assert terminal.read_secret("Key: ") == "typed after Key: "


def test_nothing_piped_is_an_empty_secret(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    assert terminal.read_secret("Key: ") == ""


def test_columns_are_as_wide_as_their_widest_cell():
    text = terminal.table(["name", "n"], [["a", "1000"], ["longer", "2"]])

    assert text.splitlines() == [
        "name    n",
        "------  ----",
        "a       1000",
        "longer  2",
    ]


def test_a_table_without_rows_is_its_head():
    assert terminal.table(["a", "bc"], []) == "a  bc\n-  --"
