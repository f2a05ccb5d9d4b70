"""What a new user types first."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.claudeproxy.service import eventually

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]


def start(data_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "claudeproxy.settings",
            "DATA_DIR": str(data_dir),
            "PORT": "0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_demo_streams_an_answer_takes_turns_and_leaves_nothing_behind(tmp_path):
    real_database = tmp_path / "claudeproxy.sqlite3"
    real_database.write_bytes(b"an operator's")
    with start(tmp_path, "demo", "--oneshot") as demo:
        output, errors = demo.communicate(timeout=90)

    assert demo.returncode == 0, errors
    assert "One streamed message" in output
    answering = re.findall(r"Account (\w+) answered", output)
    assert answering == ["ada", "grace", "edsger", "dorothy", "ada"]
    rows = [line.split() for line in output.splitlines()[-4:]]
    assert sorted(rows) == [
        ["ada", "api_key", "active", "2"],
        ["dorothy", "oauth", "active", "1"],
        ["edsger", "api_key", "active", "1"],
        ["grace", "api_key", "active", "1"],
    ]
    assert not processes_of(tmp_path)
    assert real_database.read_bytes() == b"an operator's"


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Processes whose environment names the directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DATA_DIR", "").startswith(str(data_dir)):
                found.append(process)
    return found


def test_the_sandbox_runs_alone(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with start(tmp_path, "sandbox", "--port", str(port)) as sandbox:
        try:
            answer = eventually(lambda: get(f"http://127.0.0.1:{port}/_sandbox/"))
        finally:
            sandbox.terminate()
            output, _ = sandbox.communicate(timeout=30)

    assert answer.headers["x-claude-sandbox"] == "1"
    assert f"UPSTREAM_BASE_URL=http://127.0.0.1:{port}" in output


def get(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url)
    except httpx.TransportError:
        return None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "loopback"),
        (["--port", "99999"], "--port"),
    ],
)
def test_the_sandbox_says_what_address_it_cannot_have(tmp_path, arguments, words):
    with start(tmp_path, "sandbox", *arguments) as sandbox:
        _, errors = sandbox.communicate(timeout=30)

    assert sandbox.returncode == 1
    assert words in errors
    assert "Traceback" not in errors


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_run_says_what_it_can_do():
    answer = run("help")

    assert answer.returncode == 0
    for word in ("demo", "test", "check", "bench", "setup", "manage"):
        assert f"./run {word}" in answer.stdout


def test_run_refuses_a_word_it_does_not_know():
    answer = run("dance")

    assert answer.returncode == 2
    assert "does not know 'dance'" in answer.stderr
