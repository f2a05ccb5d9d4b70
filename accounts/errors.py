"""What can go wrong with accounts."""

from claudeproxy.errors import ClaudeProxyError


class AccountError(ClaudeProxyError):
    """An account cannot be added or changed as asked; the message names the field."""


class IllegalMoveError(AccountError):
    """The table of status moves does not know this move."""

    def __init__(self, name: str, source: str, target: str) -> None:
        super().__init__(f"Account {name!r} cannot go from {source} to {target}.")
