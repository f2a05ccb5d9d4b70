"""System checks: a wrong setting is named, with the remedy, before anything starts.

E001 a variable that cannot be read · E002 the upstream's address · E003 an encryption
key · W001 credentials would travel unencrypted · W002 `/v1` twice
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from claudeproxy.conf import conf

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@register
def check_environment(**_: Any) -> Iterable[CheckMessage]:
    """Report each variable of the environment that could not be understood."""
    return [
        Error(
            f"{problem.variable}: {problem.message}.",
            hint=f"Correct {problem.variable} in the environment or in .env; "
            "see .env.example.",
            id="claudeproxy.E001",
        )
        for problem in settings.ENVIRONMENT_PROBLEMS
    ]


@register
def check_upstream(**_: Any) -> Iterable[CheckMessage]:
    """The upstream is an http(s) address and nothing more."""
    hint = "Set UPSTREAM_BASE_URL to something like https://api.anthropic.com"
    text = conf.upstream_base_url
    try:
        url = urlsplit(text)
        host, _port = url.hostname, url.port
    except ValueError:
        return [_upstream_error("is not a valid address", hint)]
    if not text.isprintable() or " " in text or "\\" in text:
        return [_upstream_error("has blanks or others in it", hint)]
    if url.scheme not in {"http", "https"} or not host:
        return [_upstream_error("must begin with https:// or http:// and a host", hint)]
    if "?" in text or "#" in text or "@" in url.netloc:
        return [_upstream_error("may not hold a user, a query or a fragment", hint)]
    if url.scheme == "http" and host not in _LOOPBACK:
        return [
            Warning(
                "UPSTREAM_BASE_URL uses http://: account credentials would travel "
                "unencrypted.",
                hint=hint,
                id="claudeproxy.W001",
            )
        ]
    if url.path.endswith("/v1"):
        return [
            Warning(
                "UPSTREAM_BASE_URL ends with /v1, which callers' paths begin with: "
                "requests would go to /v1/v1.",
                hint=hint,
                id="claudeproxy.W002",
            )
        ]
    return []


def _upstream_error(what: str, hint: str) -> Error:
    return Error(f"UPSTREAM_BASE_URL {what}.", hint=hint, id="claudeproxy.E002")


@register
def check_encryption_keys(**_: Any) -> Iterable[CheckMessage]:
    """Every key of ENCRYPTION_KEYS is a Fernet key."""
    for position, key in enumerate(conf.encryption_keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            return [
                Error(
                    f"ENCRYPTION_KEYS: key {position} is not 32 bytes of base64url.",
                    hint="Put back the key that was in use. To make a first one: "
                    'python -c "from cryptography.fernet import Fernet; '
                    'print(Fernet.generate_key().decode())"',
                    id="claudeproxy.E003",
                )
            ]
    return []
