"""Typed access to the gateway's own settings; `settings.py` reads them once."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, cast

from django.conf import settings


class Conf:
    """One property for each setting the code asks for, with its type and unit."""

    @property
    def data_dir(self) -> Path:
        return cast(Path, settings.DATA_DIR)

    @property
    def host(self) -> str:
        return cast(str, settings.HOST)

    @property
    def port(self) -> int:
        return cast(int, settings.PORT)

    @property
    def web_workers(self) -> int:
        return cast(int, settings.WEB_WORKERS)

    @property
    def encryption_keys(self) -> list[str]:
        """Fernet keys; the first encrypts, all decrypt."""
        return cast(list[str], settings.ENCRYPTION_KEYS)

    @property
    def upstream_base_url(self) -> str:
        """Scheme, host and optional path, without a slash at the end."""
        return cast(str, settings.UPSTREAM_BASE_URL)

    @property
    def request_timeout(self) -> timedelta:
        """How long the upstream may stay silent before the request is given up."""
        return cast(timedelta, settings.REQUEST_TIMEOUT)

    @property
    def routing_strategy(self) -> Literal["affinity", "round_robin"]:
        return cast(Literal["affinity", "round_robin"], settings.ROUTING_STRATEGY)

    @property
    def drain_timeout(self) -> timedelta:
        """How long open answers may go on after the worker was told to stop."""
        return cast(timedelta, settings.DRAIN_TIMEOUT)


conf = Conf()
