"""What can go wrong with client keys."""

from claudeproxy.errors import ClaudeProxyError


class ClientKeyError(ClaudeProxyError):
    """A key cannot be made or changed as asked; the message names the field."""
