"""What several files of tests look at in the same way."""

import threading

import psutil

from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Answer, ask, exchange, request


def assert_envelope(answer: Answer, status: int, kind: str) -> None:
    """Check an error that the gateway made itself, as SDKs expect it."""
    said = answer.json()
    assert answer.status == status, said
    assert answer.is_whole
    assert answer.header("content-type") == "application/json"
    assert said["type"] == "error"
    assert said["error"]["type"] == kind
    assert said["error"]["message"]
    assert said["request_id"] == answer.header("request-id")


def refused(gateway: Gateway, key: str) -> Answer | None:
    """Ask something with this key; return the answer if it is a refusal."""
    answer = exchange(gateway.port, request(ask(), key=key))
    return answer if answer.status != 200 else None


class Peak:
    """Watches the memory of a process while something happens."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.most = process.memory_info().rss

    def _watch(self) -> None:
        while not self._is_over.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def grown_bytes(self) -> int:
        return int(self.most - self.before)
