"""What can go wrong with client keys."""

from http import HTTPStatus

from claudeproxy.errors import ClaudeProxyError


class ClientKeyError(ClaudeProxyError):
    """A key cannot be made or changed as asked; the message names the field."""

    http_status: int = HTTPStatus.BAD_REQUEST
    error_type: str = "invalid_request_error"
