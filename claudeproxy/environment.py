"""The process environment, read variable by variable with its mistakes kept.

A wrong value does not stop the reading: it is noted, the default stands in, and the
system check `claudeproxy.E001` reports every mistake at once. `NAME_FILE` may name a
file that holds the value. Only `settings.py` reads the environment, through this.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, timedelta, tzinfo
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, available_timezones

import environ

from claudeproxy import durations

T = TypeVar("T")

# What `.env` may hold: nothing, a comment, or NAME=value.
_BLANK = re.compile(r"\s*(?:#.*)?")
_ASSIGNMENT = re.compile(r"(?:export )?[A-Za-z_0-9]+=[^\0]*")
# Beyond any use, and what clocks and timeouts everywhere can still count.
_LONGEST = "366d"
_NAMELESS = {"localtime", "Factory"}


@dataclass(frozen=True)
class Problem:
    """A variable that cannot be used as it is set, or the file that sets some."""

    variable: str
    message: str


@dataclass
class Environment:
    """Typed reads; `names` is every variable asked for, `problems` what was wrong."""

    env: environ.FileAwareEnv = field(default_factory=environ.FileAwareEnv)
    names: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def load_file(self, path: Path) -> None:
        """Take variables from an `.env` file; those already set win."""
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            self._note_file(path, f"it cannot be read ({error.strerror})")
            return
        except UnicodeDecodeError:
            self._note_file(path, "it cannot be read (it is no text in UTF-8)")
            return
        wrong = []
        for number, line in enumerate(lines, start=1):
            if not (_BLANK.fullmatch(line) or _ASSIGNMENT.fullmatch(line)):
                wrong.append(number)
        if wrong:
            # The numbers only: a line may hold a secret, or the end of one.
            numbers = ", ".join(map(str, wrong))
            self._note_file(path, f"not of the form NAME=value: line {numbers}")
        # The parser would log the other lines as they are.
        right = filter(_ASSIGNMENT.fullmatch, lines)
        self.env.read_env(io.StringIO("\n".join(right)))

    def _note_file(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path.name, message))

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return the variable parsed, or *default* if it is unset, empty or wrong."""
        self.names.add(name)
        try:
            raw = self._raw(name)
            return parse(raw) if raw else default
        except ValueError as error:
            self.problems.append(Problem(name, str(error)))
            return default

    def _raw(self, name: str) -> str:
        # Past `env.str`, which would take a value that begins with `$`, as a secret
        # may, for the name of another variable.
        try:
            value: str = self.env.ENVIRON.get(name, "")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"the file named by {name}_FILE cannot be read ({type(error).__name__})"
            ) from None
        return value.strip()

    def text(self, name: str, default: str = "") -> str:
        return self.read(name, str, default)

    def items(self, name: str, default: list[str]) -> list[str]:
        return self.read(
            name,
            lambda raw: [item.strip() for item in raw.split(",") if item.strip()],
            default,
        )

    def flag(self, name: str, *, default: bool) -> bool:
        return self.read(name, _parse_flag, default)

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        return self.read(name, lambda raw: _parse_number(raw, low, high), default)

    def duration(
        self, name: str, default: str, *, low: str = "1ms", step: str = ""
    ) -> timedelta:
        return self.read(
            name, lambda raw: _parse_duration(raw, low, step), durations.parse(default)
        )

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        return self.read(name, lambda raw: _parse_choice(raw, choices), default)

    def time_zone(self, name: str) -> tzinfo:
        utc: tzinfo = UTC
        return self.read(name, _parse_time_zone, utc)

    def database(self, name: str, default: str) -> dict[str, Any]:
        return self.read(name, _parse_database, _parse_database(default))


def _parse_flag(raw: str) -> bool:
    if raw.lower() in {"on", "true", "yes", "1"}:
        return True
    if raw.lower() in {"off", "false", "no", "0"}:
        return False
    raise ValueError(f"{raw!r} is neither on nor off")


def _parse_number(raw: str, low: int, high: int) -> int:
    try:
        number = int(raw)
    except ValueError:
        raise ValueError(f"{raw!r} is not a whole number") from None
    if not low <= number <= high:
        raise ValueError(f"{number} is out of range; use {low} to {high}")
    return number


def _parse_duration(raw: str, low: str, step: str) -> timedelta:
    span = durations.parse(raw)
    if span < durations.parse(low):
        raise ValueError(f"{raw!r} is too short; use {low} or more")
    if span > durations.parse(_LONGEST):
        raise ValueError(f"{raw!r} is too long; use {_LONGEST} or less")
    if step and span % durations.parse(step):
        raise ValueError(f"{raw!r} is in between; use a multiple of {step}")
    return span


def _parse_choice(raw: str, choices: tuple[str, ...]) -> str:
    if raw not in choices:
        raise ValueError(f"{raw!r} is not known; use one of {', '.join(choices)}")
    return raw


def _parse_time_zone(raw: str) -> tzinfo:
    if raw == "UTC":
        return UTC  # which needs no list of zones
    try:
        # Some directories of zones hold what has no name of its own: the machine's own
        # zone, and clocks that count leap seconds.
        if raw not in _NAMELESS and not raw.startswith(("posix", "right/")):
            return ZoneInfo(raw)
    except (KeyError, ValueError, OSError):  # no such file; none that may be; no zone
        pass
    # None of Etc, whose signs are the other way round.
    known = {
        name.casefold(): name
        for name in available_timezones()
        if "/" in name and not name.startswith("Etc/")
    } | {"utc": "UTC"}
    # Less near than that, `UTC+2` would be told to be UTC.
    near = get_close_matches(raw.casefold(), known, n=1, cutoff=0.8)
    example = known[near[0]] if near else "Europe/Berlin"
    raise ValueError(
        f"{raw!r} is no time zone that this machine knows; use a name of the IANA "
        f"list, such as {example}"
    )


def _parse_database(raw: str) -> dict[str, Any]:
    # The value is not repeated here, nor what the parser says: either may hold the
    # password.
    scheme = raw.partition("://")[0]
    if scheme not in {"sqlite", "postgres", "postgresql"}:
        raise ValueError(
            "use sqlite:////path/to/file or postgres://user:password@host:5432/name"
        )
    # In memory every process would have its own, and by a relative path one for each
    # directory that a process was started in.
    if scheme == "sqlite" and not raw.startswith("sqlite:////"):
        raise ValueError(
            "SQLite needs the absolute path of a file, which makes four slashes: "
            "sqlite:////path/to/file"
        )
    try:
        return dict(environ.Env.db_url_config(raw))
    except ValueError:
        raise ValueError(
            "its port is not a number up to 65535, or its user or password has a "
            "/ or ? in it that must be written as %2F or %3F"
        ) from None
