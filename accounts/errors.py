"""What can go wrong with accounts.

AccountError                 an account cannot be added or changed as asked
├─ IllegalMoveError          the table of moves does not know the move
├─ IdentityError             the account is somebody's whom it may not be
└─ OAuthError
   ├─ OAuthNotConfiguredError   a setting is missing
   ├─ AuthorizationError        the way back from the provider is not in order
   ├─ TokenRefusedError         the provider refused the grant: a person must act
   └─ NoTokenReplyError         no answer about the grant: try again later
"""

from http import HTTPStatus

from claudeproxy.errors import ClaudeProxyError


class AccountError(ClaudeProxyError):
    """An account cannot be added or changed as asked; the message names the field."""

    http_status: int = HTTPStatus.BAD_REQUEST
    error_type: str = "invalid_request_error"


class IllegalMoveError(AccountError):
    """The table of status moves does not know this move."""

    http_status: int = HTTPStatus.CONFLICT

    def __init__(self, name: str, source: str, target: str) -> None:
        super().__init__(f"Account {name!r} cannot go from {source} to {target}.")


class IdentityError(AccountError):
    """The account is there already, or is not the one it should be."""

    http_status: int = HTTPStatus.CONFLICT


class OAuthError(AccountError):
    """Signing in at the provider, or refreshing, did not succeed."""


class OAuthNotConfiguredError(OAuthError):
    """Settings without which nobody can sign in are missing."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(
            f"Signing in at the provider needs {', '.join(missing)} to be set. "
            "docs/accounts.md says where the values come from."
        )
        self.missing = missing


class AuthorizationError(OAuthError):
    """What came back from the provider does not belong to a sign-in begun here."""


class TokenRefusedError(OAuthError):
    """The provider refused the grant for good; the message is the provider's."""


class NoTokenReplyError(OAuthError):
    """Nothing was said about the grant.

    `was_processed` is False where the provider certainly did not act on the request,
    and None where nobody knows: then a rotating refresh token may be used up.
    """

    http_status: int = HTTPStatus.BAD_GATEWAY
    error_type: str = "api_error"

    def __init__(self, message: str, *, was_processed: bool | None = False) -> None:
        super().__init__(message)
        self.was_processed = was_processed
