"""System checks: a wrong setting is named, with the remedy, before anything starts.

E001 a variable that cannot be read · E002 the upstream's address · E003 an encryption
key · E005 the encryption keys do not open what is stored · W001 credentials would
travel unencrypted · W002 `/v1` twice
"""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DatabaseError
from django.db import connections
from django.db.models import Model

from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_MOST_NAMES = 10
# A sign-in that was begun lives for minutes; one that is lost is begun again.
_SHORT_LIVED = {"accounts.pendingauthorization"}


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
    """There are encryption keys, and every one of them is a Fernet key."""
    if not conf.encryption_keys:
        return [_key_error("there is no key")]
    for position, key in enumerate(conf.encryption_keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            return [_key_error(f"key {position} is not 32 bytes of base64url")]
    return []


def _key_error(what: str) -> Error:
    return Error(
        f"{_place_of_keys()}: {what}.",
        hint="Put back the key that was in use. To make a first one: "
        'python -c "from cryptography.fernet import Fernet; '
        'print(Fernet.generate_key().decode())"',
        id="claudeproxy.E003",
    )


@register(Tags.database)
def check_stored_secrets(
    *, databases: Sequence[str] | None = None, **_: Any
) -> Iterable[CheckMessage]:
    """The keys open what is stored: a wrong one is found before anybody needs it."""
    if list(check_encryption_keys()):
        return []  # reported already
    try:
        return [
            _unreadable_error(model, names)
            for alias in databases or ()
            for model in apps.get_models()
            if model._meta.label_lower not in _SHORT_LIVED
            if (names := _unreadable(model, alias))
        ]
    except DatabaseError:
        return []  # whoever needs the database says what is wrong with it


def _unreadable(model: type[Model], alias: str) -> list[str]:
    """Name the rows of which at least one secret cannot be decrypted."""
    # By what they have: this module knows settings, not the fields that use them.
    secrets = [
        field
        for field in model._meta.local_concrete_fields
        if hasattr(type(field), "cipher")
    ]
    if not secrets or not _has_columns(
        model, {str(field.column) for field in secrets}, alias
    ):
        return []
    names = [field.attname for field in secrets]
    rows = model._base_manager.using(alias).only("pk", *names).order_by("pk")
    return [str(row) for row in rows.iterator() if not _is_readable(row, names)]


def _has_columns(model: type[Model], columns: set[str], alias: str) -> bool:
    """Is the table there, in the form that has these? Not before it is migrated."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        if model._meta.db_table not in connection.introspection.table_names(cursor):
            return False
        found = connection.introspection.get_table_description(
            cursor, model._meta.db_table
        )
    return columns <= {column.name for column in found}


def _is_readable(row: Model, names: list[str]) -> bool:
    try:
        for name in names:
            if (secret := getattr(row, name)) is not None:
                secret.reveal()
    except ClaudeProxyError:
        return False
    return True


def _unreadable_error(model: type[Model], names: list[str]) -> Error:
    listed = ", ".join(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        listed += f" and {len(names) - _MOST_NAMES} more"
    return Error(
        f"The secrets of these {model._meta.verbose_name_plural} cannot be read with "
        f"the keys in {_place_of_keys()}: {listed}.",
        hint="Nothing was changed. Put back the key they were written with, behind "
        "the one there is now if that is needed too. docs/secrets.md says how, and "
        "what to do if it is lost.",
        id="claudeproxy.E005",
    )


def _place_of_keys() -> str:
    return str(settings.ENCRYPTION_KEY_FILE or "ENCRYPTION_KEYS")
