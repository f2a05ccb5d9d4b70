"""The REST API of the client sessions: `/api/sessions`, `/api/admin/sessions`."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from claudeproxy.errors import RequestRefusedError
from sessions_limit import ending, listing, references
from sessions_limit.backends.base import StoreAwayError
from sessions_limit.listing import ShownSession, Wanted
from sessions_limit.serializers import (
    EndSessionSerializer,
    SessionFilterSerializer,
    SessionSerializer,
)


class SessionListViewSet(GenericViewSet[Any]):
    """The list, under the path that the Go version had for administrators."""

    serializer_class = SessionSerializer

    @extend_schema(summary="List", parameters=[SessionFilterSerializer])
    def list(self, request: Request) -> Response:
        asked = _valid(SessionFilterSerializer, request)
        with _telling_of_store():
            sessions = list(listing.matching(listing.load(), _wanted(asked)))
        page: list[ShownSession] | None = self.paginate_queryset(sessions)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


class SessionViewSet(SessionListViewSet):
    lookup_url_kwarg = "id"
    lookup_value_regex = "[^/]+"

    @extend_schema(
        summary="End it, and block it if asked to",
        parameters=[
            OpenApiParameter(
                "id", str, OpenApiParameter.PATH, description="As the list has it."
            ),
            EndSessionSerializer,
        ],
        responses={204: None},
    )
    def destroy(self, request: Request, id: str) -> Response:
        block = _valid(EndSessionSerializer, request)["block"]
        session = references.read(id)
        actor = request.user.get_username()
        if session is None:
            raise _unknown()
        with _telling_of_store():
            report = ending.end([session], block=block, actor=actor)
            is_found = report.ended or report.blocked
            # What is not alive is blocked if it is anything, and so can only get free.
            if not is_found and not ending.unblock([session], actor=actor):
                raise _unknown()
        return Response(status=HTTPStatus.NO_CONTENT)


@contextmanager
def _telling_of_store() -> Iterator[None]:
    try:
        yield
    except StoreAwayError as error:
        raise RequestRefusedError(
            f"The store of sessions does not answer ({error}); try again. "
            "Running requests go on.",
            http_status=HTTPStatus.SERVICE_UNAVAILABLE,
            error_type="api_error",
        ) from error


def _valid(serializer: type[Any], request: Request) -> dict[str, Any]:
    """Read what the address asks for after its `?`."""
    read = serializer(data=request.query_params)
    read.is_valid(raise_exception=True)
    asked: dict[str, Any] = read.validated_data
    return asked


def _wanted(asked: dict[str, Any]) -> Wanted:
    state, scope = asked.get("state"), asked.get("scope")
    return Wanted(
        has_own_limit=None if scope is None else scope == "own",
        key_id=asked.get("key_id"),
        is_alive=None if state is None else state == "alive",
        search=asked["search"],
    )


def _unknown() -> RequestRefusedError:
    return RequestRefusedError(
        "No session with this id is alive or blocked; it may have ended. "
        "GET /api/sessions lists those there are.",
        http_status=HTTPStatus.NOT_FOUND,
        error_type="not_found_error",
    )
