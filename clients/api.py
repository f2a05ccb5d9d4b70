"""The REST API of the client keys: `/api/tokens`."""

from http import HTTPStatus
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.viewsets import GenericViewSet

from clients import issuing
from clients.models import ClientKey, ClientKeyRole
from clients.serializers import (
    ChangeKeySerializer,
    ClientKeySerializer,
    IssuedKeySerializer,
    IssueKeySerializer,
)


class ClientKeyViewSet(GenericViewSet[ClientKey]):
    queryset = ClientKey.objects.all()
    serializer_class = ClientKeySerializer

    @extend_schema(summary="List")
    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        summary="Issue",
        request=IssueKeySerializer,
        responses={201: IssuedKeySerializer},
    )
    def create(self, request: Request) -> Response:
        asked = IssueKeySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        issued = issuing.issue(
            asked.validated_data["name"],
            ClientKeyRole(asked.validated_data["role"]),
            expires_at=asked.validated_data["expires_at"],
            session_limit=asked.validated_data["session_limit"],
        )
        issuing.record("issued", issued.row, actor=_actor(request))
        return Response(
            {**self.get_serializer(issued.row).data, "key": issued.key.reveal()},
            status=HTTPStatus.CREATED,
            headers={
                "cache-control": "no-store",
                "location": reverse(
                    "api:token-detail", [issued.row.pk], request=request
                ),
            },
        )

    @extend_schema(summary="Show")
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(summary="Rename or limit", request=ChangeKeySerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        asked = ChangeKeySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        key = self.get_object()
        if "name" in asked.validated_data:
            issuing.rename(key, asked.validated_data["name"])
        if "session_limit" in asked.validated_data:
            issuing.limit_sessions(key, asked.validated_data["session_limit"])
        return Response(self.get_serializer(key).data)

    @extend_schema(summary="Delete")
    def destroy(self, request: Request, pk: str) -> Response:
        issuing.delete(self.get_object(), actor=_actor(request))
        return Response(status=HTTPStatus.NO_CONTENT)

    @extend_schema(summary="End it for good", request=None)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        key = self.get_object()
        if issuing.revoke(key, now=timezone.now()):
            issuing.record("revoked", key, actor=_actor(request))
        # A key that was revoked before is answered alike, with the time it was.
        return Response(self.get_serializer(self.get_object()).data)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "now": timezone.now()}


def _actor(request: Request) -> str:
    return request.user.get_username()
