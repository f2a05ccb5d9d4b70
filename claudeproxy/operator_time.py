"""Puts the pages that people read into the operator's time zone.

What machines read stays in UTC: the REST API, exports, logs, jobs and commands. So the
zone holds for a page alone, and from when it is known to be one.
"""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.utils import timezone

from claudeproxy.conf import conf


class OperatorTimeMiddleware:
    """Makes the zone Django's current one: templates and forms go by it."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._answer(request)
        with timezone.override(None):  # whatever a page makes current ends with it
            return self._get_response(request)

    async def _answer(self, request: HttpRequest) -> Any:
        with timezone.override(None):
            return await self._get_response(request)

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        match = request.resolver_match
        if match is not None and "api" not in match.namespaces:
            timezone.activate(conf.operator_time_zone)
