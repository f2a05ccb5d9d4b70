"""The REST API of usage: `/api/usage`, its sums, and `/api/usage/requests`."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.viewsets import ViewSet

from usage import export, reports, request_log
from usage.reports import By
from usage.request_log import Place
from usage.serializers import (
    GroupSerializer,
    LineSerializer,
    LoggedRequestSerializer,
    RequestFilterSerializer,
    RequestPageSerializer,
    UsageFilterSerializer,
    UsageSerializer,
)

_JSON = (200, "application/json")
_CSV = (200, "text/csv")


class UsageViewSet(ViewSet):
    @extend_schema(
        summary="What was used",
        parameters=[UsageFilterSerializer],
        responses={_JSON: UsageSerializer, _CSV: OpenApiTypes.STR},
    )
    def totals(self, request: Request) -> HttpResponseBase:
        asked = _valid(UsageFilterSerializer(data=request.query_params.dict()))
        span = asked["from"], asked["to"]
        by = By(asked["group_by"]) if "group_by" in asked else None
        found = reports.grouped(by, *span, asked["only"]) if by else []
        groups = [GroupSerializer(line).data for line in found]
        if asked["format"] == "csv" and by:
            return _table(GroupSerializer(), groups)
        total = LineSerializer(reports.total(*span, asked["only"])).data
        if asked["format"] == "csv":
            return _table(LineSerializer(), [total])
        since, until = reports.whole_hours(*span)
        return Response(
            {
                "from": since,
                "to": until,
                "group_by": by and by.value,
                "total": total,
                "groups": groups,
            }
        )

    @extend_schema(
        summary="Single requests, the newest first",
        parameters=[RequestFilterSerializer],
        responses={_JSON: RequestPageSerializer, _CSV: OpenApiTypes.STR},
    )
    def requests(self, request: Request) -> HttpResponseBase:
        asked = _valid(RequestFilterSerializer(data=request.query_params.dict()))
        if asked["format"] == "csv":
            return _download(
                StreamingHttpResponse(export.stream_csv(asked["wanted"])), "requests"
            )
        size = asked["page_size"]
        found = request_log.chunk(asked["wanted"], asked.get("cursor"), size + 1)
        rows = found[:size]
        following = None
        if len(found) > size:
            following = request.build_absolute_uri()
            # What was left out means the same on all pages: now moves on.
            for name in ("from", "to"):
                at = asked[name].astimezone(UTC).isoformat().replace("+00:00", "Z")
                following = replace_query_param(following, name, at)
            following = replace_query_param(
                following, "cursor", str(Place.of(rows[-1]))
            )
        shown = [export.request_fields(row) for row in rows]
        return Response(
            {
                "next": following,
                "results": LoggedRequestSerializer(shown, many=True).data,
            }
        )


def _valid(serializer: Any) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    asked: dict[str, Any] = serializer.validated_data
    return asked


def _table(
    shape: LineSerializer, rows: Sequence[Mapping[str, Any]]
) -> HttpResponseBase:
    lines = [list(shape.fields), *(list(row.values()) for row in rows)]
    return _download(HttpResponse(export.as_csv(lines)), "usage")


def _download(response: HttpResponseBase, name: str) -> HttpResponseBase:
    response["content-type"] = "text/csv; charset=utf-8"
    response["content-disposition"] = f'attachment; filename="{name}.csv"'
    response["cache-control"] = "no-store"
    response["x-accel-buffering"] = "no"
    return response
