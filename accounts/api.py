"""The REST API of the accounts: `/api/accounts`, and `/oauth` for signing in."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.db.models import Count, F, Q, QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.serializers import BaseSerializer, ValidationError
from rest_framework.viewsets import GenericViewSet, ViewSet

from accounts import (
    activation,
    lifecycle,
    oauth,
    probe,
    registration,
    removal,
    signin,
    tokens,
    upkeep,
)
from accounts.errors import AccountError
from accounts.models import Account
from accounts.serializers import (
    AccountDetailSerializer,
    AccountFilterSerializer,
    AccountSerializer,
    AddAccountSerializer,
    AuthorizeSerializer,
    BegunSerializer,
    CapabilitiesReadSerializer,
    EventSerializer,
    ExchangeSerializer,
    FindingSerializer,
    MoveSerializer,
    RefreshedSerializer,
    RenameAccountSerializer,
)
from accounts.status import AccountKind
from claudeproxy.conf import conf
from claudeproxy.crypto import Secret
from claudeproxy.errors import RequestRefusedError

Verb = Callable[..., bool]

_NO_STORE = {"cache-control": "no-store"}


class AccountViewSet(GenericViewSet[Account]):
    queryset = Account.objects.all()
    serializer_class = AccountSerializer

    @extend_schema(summary="List", parameters=[AccountFilterSerializer])
    def list(self, request: Request) -> Response:
        asked = _valid(AccountFilterSerializer(data=request.query_params))
        page = self.paginate_queryset(_matching(asked))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        summary="Add an API key",
        request=AddAccountSerializer,
        responses={201: AccountSerializer},
    )
    def create(self, request: Request) -> Response:
        asked = _valid(AddAccountSerializer(data=request.data))
        name = registration.clean_name(asked["name"])
        api_key = registration.clean_api_key(asked["api_key"])
        registration.require_free_name(name)
        account = registration.add_api_key(
            name,
            api_key,
            organization_uuid=_ask_about(api_key) if asked["check"] else "",
            actor=_actor(request),
            now=timezone.now(),
        )
        if asked["check"]:
            upkeep.look_at_capabilities(account)
        return Response(
            _show(account),
            status=HTTPStatus.CREATED,
            headers={
                "location": reverse("api:account-detail", [account.pk], request=request)
            },
        )

    @extend_schema(summary="Show", responses=AccountDetailSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        self.queryset = Account.objects.annotate(event_count=Count("events"))
        return Response(AccountDetailSerializer(self.get_object()).data)

    @extend_schema(summary="Rename", request=RenameAccountSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        asked = _valid(RenameAccountSerializer(data=request.data))
        account = self.get_object()
        registration.rename(account, asked["name"])
        return Response(_show(account))

    @extend_schema(summary="Delete; its history stays")
    def destroy(self, request: Request, pk: str) -> Response:
        removal.delete(self.get_object(), actor=_actor(request))
        return Response(status=HTTPStatus.NO_CONTENT)

    @extend_schema(summary="Let it serve again", request=MoveSerializer)
    @action(detail=True, methods=["post"])
    def activate(self, request: Request, pk: str) -> Response:
        return self._move(request, activation.activate, "activated through the API")

    @extend_schema(summary="Take it out", request=MoveSerializer)
    @action(detail=True, methods=["post"])
    def deactivate(self, request: Request, pk: str) -> Response:
        return self._move(request, lifecycle.deactivate, "deactivated through the API")

    @extend_schema(
        summary="Refresh its access token now",
        request=None,
        responses=RefreshedSerializer,
    )
    @action(detail=True, methods=["post"])
    def refresh(self, request: Request, pk: str) -> Response:
        account = self.get_object()
        if account.kind != AccountKind.OAUTH:
            raise AccountError(
                f"Account {account.name!r} has an API key, and nothing to refresh."
            )
        result = tokens.ensure_fresh(account.pk, force=True)
        return Response(
            {
                "outcome": result.outcome.name.lower(),
                "message": result.message,
                "account": _show(self.get_object()),
            }
        )

    @extend_schema(
        summary="Ask the provider whether its credential works",
        request=None,
        responses=FindingSerializer,
    )
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        return Response(FindingSerializer(probe.check(self.get_object())).data)

    @extend_schema(
        summary="Read again which models it may use",
        request=None,
        responses=CapabilitiesReadSerializer,
    )
    @action(detail=True, methods=["post"])
    def capabilities(self, request: Request, pk: str) -> Response:
        account = self.get_object()
        was_read = upkeep.look_at_capabilities(account)
        return Response({"was_read": was_read, "account": _show(account)})

    @extend_schema(summary="What happened to it", responses=EventSerializer(many=True))
    @action(detail=True, serializer_class=EventSerializer)
    def events(self, request: Request, pk: str) -> Response:
        events: QuerySet[Any] = self.get_object().events.all()
        page = self.paginate_queryset(events)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def _move(self, request: Request, verb: Verb, otherwise: str) -> Response:
        asked = _valid(MoveSerializer(data=request.data))
        account = self.get_object()
        is_moved = verb(
            account,
            actor=_actor(request),
            reason=asked["reason"] or otherwise,
            now=timezone.now(),
        )
        if not is_moved:
            raise RequestRefusedError(
                f"Account {account.name!r} was moved by somebody else just now. "
                "Look at it again.",
                http_status=HTTPStatus.CONFLICT,
                error_type="invalid_request_error",
            )
        return Response(_show(account))


class SignInViewSet(ViewSet):
    """Signing in at the provider, for who works without the admin's pages."""

    @extend_schema(
        summary="Begin to sign in",
        parameters=[AuthorizeSerializer],
        responses=BegunSerializer,
    )
    @action(detail=False)
    def authorize(self, request: Request) -> Response:
        asked = _valid(AuthorizeSerializer(data=request.query_params))
        redirect_uri = conf.oauth_redirect_uri or request.build_absolute_uri(
            "/oauth/callback"
        )
        begun = signin.begin(
            owner=_owner(request),
            redirect_uri=redirect_uri,
            **asked,
            now=timezone.now(),
        )
        return Response(
            {
                "authorization_url": begun.url,
                "state": begun.state,
                "expires_in": int(signin.LIFETIME.total_seconds()),
                "redirect_uri": redirect_uri,
            },
            headers=_NO_STORE,
        )

    @extend_schema(
        summary="Turn the code into an account",
        request=ExchangeSerializer,
        responses=AccountSerializer,
    )
    @action(detail=False, methods=["post"])
    def exchange(self, request: Request) -> Response:
        asked = _valid(ExchangeSerializer(data=request.data))
        code, pasted_state = oauth.split_pasted_code(asked["code"])
        state = asked["state"] or pasted_state
        if not state:
            raise ValidationError(
                {"state": ["Give the state, or the code as CODE#STATE."]}
            )
        if pasted_state and pasted_state != state:
            raise ValidationError(
                {"state": ["This is not the state that came with the code."]}
            )
        account = signin.finish(
            owner=_owner(request),
            state=state,
            code=Secret(code),
            actor=_actor(request),
            now=timezone.now(),
        )
        upkeep.look_at_capabilities(account)
        return Response(_show(account))


def _valid(serializer: BaseSerializer[Any]) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    asked: dict[str, Any] = serializer.validated_data
    return asked


def _show(account: Account) -> dict[str, Any]:
    """The account as it is now: some verbs change the row and not the object."""
    return dict(AccountSerializer(get_object_or_404(Account, pk=account.pk)).data)


def _matching(asked: dict[str, Any]) -> QuerySet[Account]:
    exact = {name: asked[name] for name in ("status", "kind") if name in asked}
    text = asked["search"]
    named = (
        Q(name__icontains=text)
        | Q(holder_name__icontains=text)
        | Q(organization_name__icontains=text)
    )
    column = F(asked["ordering"].removeprefix("-"))
    order = (
        column.desc(nulls_last=True)
        if asked["ordering"].startswith("-")
        else column.asc(nulls_last=True)
    )
    found = Account.objects.filter(named, **exact).order_by(order, "pk")
    return found.prefetch_related("quota")


def _ask_about(api_key: Secret) -> str:
    """Return the organization of a key that works; errors say why it does not."""
    finding = probe.check_credential(AccountKind.API_KEY, api_key)
    if finding.works:
        return finding.organization_uuid
    said = finding.message.rstrip(".")
    if finding.refused:
        raise AccountError(f"api_key: this key was refused: {said}.")
    raise RequestRefusedError(
        f"The key could not be checked: {said}. "
        'To add it unchecked, send "check": false.',
        http_status=HTTPStatus.BAD_GATEWAY,
        error_type="api_error",
    )


def _actor(request: Request) -> str:
    return request.user.get_username()


def _owner(request: Request) -> str:
    """Who may end a sign-in that they began: a client key, or a person."""
    key: Any = request.auth
    return f"user:{request.user.pk}" if key is None else f"key:{key.id}"
