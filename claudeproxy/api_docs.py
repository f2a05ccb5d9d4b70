"""The REST API described: its OpenAPI document, and the page that shows it."""

from collections.abc import Sequence
from typing import Any, NoReturn

from django.contrib.auth.views import redirect_to_login
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.exceptions import NotAuthenticated, NotFound
from rest_framework.request import Request
from rest_framework.views import APIView

# A path, the regular expression it is served under, the method and the view.
Endpoint = tuple[str, str, str, Any]

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"type": "string", "enum": ["error"]},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string", "example": "invalid_request_error"},
                "message": {"type": "string"},
                "fields": {
                    "type": "object",
                    "description": "What is wrong with each field, if it is a field.",
                    "additionalProperties": {
                        "type": "array",
                        "items": {"type": "string"},
                    },
                },
            },
        },
        "request_id": {"type": "string", "description": "As in the gateway's log."},
    },
}
_ERROR_RESPONSE = {
    "description": "Any error.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


class SchemaView(SpectacularAPIView):
    renderer_classes = [OpenApiJsonRenderer2, OpenApiJsonRenderer]  # noqa: RUF012  # as the base class


class DocsView(SpectacularSwaggerSplitView):
    url_name = "api:schema"
    template_name = "api/docs.html"

    def handle_exception(self, exc: Exception) -> Any:
        # A person opens this page in a browser, and can log in there.
        if isinstance(exc, NotAuthenticated):
            return redirect_to_login(self.request.get_full_path())
        return super().handle_exception(exc)


@extend_schema(exclude=True)
class NothingHereView(APIView):
    """Whatever else is asked for under `/api`: an error as the others are."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> NoReturn:
        super().initial(request, *args, **kwargs)
        raise NotFound("There is no such path. /api/docs/ shows those there are.")


def without_slash_at_end(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Describe each path once: the slash that every path may end with is left out."""
    return [(path.rstrip("/"), *others) for path, *others in endpoints]


def with_errors(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Describe the one shape that errors have, for every operation."""
    result["components"]["schemas"]["Error"] = _ERROR_SCHEMA
    for methods in result["paths"].values():
        for operation in methods.values():
            operation["responses"]["default"] = _ERROR_RESPONSE
    return result
