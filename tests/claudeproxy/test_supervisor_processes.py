import json
import signal
from pathlib import Path

import pytest

from tests.claudeproxy.service import eventually, started

pytestmark = pytest.mark.processes

SUPERVISE = """
import signal, socket, time
import django

django.setup()

from claudeproxy.supervisor import Role, Supervisor
from claudeproxy.watchdog import Watchdog


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ignoring", flush=True)
    time.sleep(60)


def raise_an_error():
    raise ValueError("no good")


Supervisor(
    [
        Role("stubborn", ignore_sigterm),
        Role("crashing", lambda: 3),
        Role("raising", raise_an_error),
    ],
    listener=socket.create_server(("127.0.0.1", 0)),
    seconds_to_stop=0.5,
    watchdog=Watchdog(),
).run()
"""


def test_what_crashes_is_restarted_ever_later_and_what_does_not_end_is_killed(
    tmp_path: Path,
):
    with started(["-c", SUPERVISE], tmp_path) as service:

        def delays(name: str) -> list[tuple[int, float]]:
            lines = [json.loads(line) for line in service.log.splitlines()]
            return [
                (line["exit_code"], line["restart_in_seconds"])
                for line in lines
                if line["event"] == "process_ended" and line["process"] == name
            ]

        eventually(lambda: "ignoring" in service.output)
        eventually(lambda: len(delays("crashing")) >= 3)
        eventually(lambda: len(delays("raising")) >= 3)
        assert delays("crashing")[:3] == [(3, 0.1), (3, 0.2), (3, 0.4)]
        assert delays("raising")[:3] == [(1, 0.1), (1, 0.2), (1, 0.4)]
        assert '"exc_value":"no good"' in service.log
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert '"process":"stubborn"' in service.log.splitlines()[-1]
        assert '"event":"process_killed"' in service.log.splitlines()[-1]
