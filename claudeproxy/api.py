"""What every endpoint of the REST API shares: who may call, pages, and the errors.

The settings name these classes, and REST framework loads them while it loads itself;
so nothing here may import its views. What is about an endpoint is in `accounts.api` and
`clients.api`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from re import DOTALL, fullmatch
from typing import IO, Any

import structlog
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404, JsonResponse
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from clients import directory, keys
from clients.directory import KnownKey
from clients.models import ClientKeyRole
from proxy import admission
from proxy.record import new_request_id

_log = structlog.get_logger(__name__)

# --- who may call ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Stands where Django has its user, for a request that shows a client key."""

    key: KnownKey
    is_authenticated = True
    is_anonymous = False

    def get_username(self) -> str:
        return f"key {self.key.name}"


class ClientKeyAuthentication(BaseAuthentication):
    """A key in `X-API-Key`, or in `Authorization: Bearer`; never in the address."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, KnownKey] | None:
        texts = _keys_shown(request)
        if not texts:
            return None
        known, now = directory.load(*map(keys.digest, texts)), timezone.now()
        key = admission.find(texts, known, now)
        if key is None:
            raise exceptions.AuthenticationFailed(
                str(admission.refusal(texts, known, now))
            )
        return KeyHolder(key), key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Claude Proxy"'


class AdminsOnly(BasePermission):
    """Lets in a key with the role admin, and the login of an administrator."""

    message = (
        "This is for administrators: use a client key with the role admin, "
        "or log in as one."
    )

    def has_permission(self, request: Request, view: Any) -> bool:
        if isinstance(request.auth, KnownKey):
            return request.auth.role == ClientKeyRole.ADMIN
        user = request.user
        return bool(user and user.is_active and user.is_staff and user.is_superuser)


def _keys_shown(request: Request) -> list[str]:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    shown = [
        request.headers.get("x-api-key", ""),
        token if scheme.lower() == "bearer" else "",
    ]
    return [text.strip() for text in shown if text.strip()]


class ClientKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI description tells of client keys."""

    target_class = "claudeproxy.api.ClientKeyAuthentication"
    name = ["adminKey", "bearerKey"]  # noqa: RUF012  # as the base class has it

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]  # one of them is enough

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "description": "A client key with the role admin.",
            },
            {
                "type": "http",
                "scheme": "bearer",
                "description": "The same key in `Authorization: Bearer`.",
            },
        ]


# --- bodies ---------------------------------------------------------------------------

_MOST_BYTES = 1024**2  # what is sent here is a name, a key, a reason


class SmallJSONParser(JSONParser):
    """JSON of a reasonable size and depth."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        request: Request = (parser_context or {})["request"]
        if int(request.META.get("CONTENT_LENGTH") or 0) > _MOST_BYTES:
            raise RequestRefusedError(
                "The request is larger than 1 MB, which is the most this API takes.",
                http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                error_type="request_too_large",
            )
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise exceptions.ParseError("This JSON is nested too deeply.") from None


# --- pages ----------------------------------------------------------------------------


class Pages(PageNumberPagination):
    page_size = 50
    page_size_query_param = "page_size"
    page_size_query_description = "50 if left out, 500 at most."
    max_page_size = 500


# --- errors ---------------------------------------------------------------------------

_ERROR_TYPES: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_NO_FIELD = "non_field_errors"
# How the verbs name the field at fault: "name: an account called … exists already."
_NAMES_A_FIELD = r"([a-z_]+): (.+)"


@dataclass(frozen=True)
class _Answer:
    """An error as HTTP, without the id of the request."""

    status: int
    error_type: str
    message: str
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_error(error: Exception, context: Mapping[str, Any]) -> JsonResponse:
    """Answer any error of an endpoint in the envelope of the API the gateway speaks."""
    request_id = new_request_id()
    answer = _read(error)
    view = context.get("view")
    facts = {
        "request_id": request_id,
        "status": answer.status,
        "error_type": answer.error_type,
        "view": type(view).__name__,
        "action": getattr(view, "action", None),
    }
    if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("api_request_failed", **facts, exc_info=error)
    else:
        _log.info("api_request_refused", **facts)
    described: dict[str, Any] = {"type": answer.error_type, "message": answer.message}
    if answer.fields:
        described["fields"] = answer.fields
    return JsonResponse(
        {"type": "error", "error": described, "request_id": request_id},
        status=answer.status,
        headers={**answer.headers, "request-id": request_id},
    )


def _read(error: Exception) -> _Answer:
    match error:
        case ClaudeProxyError():
            return _read_ours(error)
        case exceptions.ValidationError():
            return _read_validation(error)
        case Http404():
            return _read_framework(exceptions.NotFound("Nothing here has this id."))
        case DjangoPermissionDenied():
            return _read_framework(exceptions.PermissionDenied())
        case exceptions.NotAuthenticated():
            return _read_framework(
                error,
                "No key was sent. Put a client key with the role admin into "
                "X-API-Key, or log in to the admin as an administrator.",
            )
        case exceptions.UnsupportedMediaType():
            return _read_framework(
                error, "Send JSON, with the header content-type: application/json."
            )
        case exceptions.APIException():
            return _read_framework(error)
    return _Answer(
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        error_type="api_error",
        message="The gateway failed on this request. Its operator finds the cause "
        "in the log, under this request id.",
    )


def _read_ours(error: ClaudeProxyError) -> _Answer:
    message = str(error)
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["retry-after"] = str(ceil(error.retry_after.total_seconds()))
    named = fullmatch(_NAMES_A_FIELD, message, DOTALL)
    is_about_a_field = named and error.http_status == HTTPStatus.BAD_REQUEST
    return _Answer(
        status=error.http_status,
        error_type=error.error_type,
        message=message,
        fields={named[1]: [named[2]]} if named and is_about_a_field else {},
        headers=headers,
    )


def _read_validation(error: exceptions.ValidationError) -> _Answer:
    detail = error.detail
    by_field: Mapping[str, Any] = (
        detail if isinstance(detail, dict) else {_NO_FIELD: detail}
    )
    said = {
        name: [str(text) for text in texts] if isinstance(texts, list) else [str(texts)]
        for name, texts in by_field.items()
    }
    sentences = [
        text if name == _NO_FIELD else f"{name}: {text}"
        for name, texts in said.items()
        for text in texts
    ]
    said.pop(_NO_FIELD, None)
    return _Answer(
        status=HTTPStatus.BAD_REQUEST,
        error_type="invalid_request_error",
        message=" ".join(sentences),
        fields=said,
    )


def _read_framework(error: exceptions.APIException, message: str = "") -> _Answer:
    headers = {}
    if auth_header := getattr(error, "auth_header", None):
        headers["www-authenticate"] = auth_header
    if (wait := getattr(error, "wait", None)) is not None:
        headers["retry-after"] = str(ceil(wait))
    default = (
        "api_error"
        if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        else "invalid_request_error"
    )
    return _Answer(
        status=error.status_code,
        error_type=_ERROR_TYPES.get(error.status_code, default),
        message=message or str(error.detail),
        headers=headers,
    )
