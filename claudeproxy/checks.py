"""System checks: a wrong setting is named, with the remedy, before anything starts.

E001 a variable, or `.env`, that cannot be read · E002 the upstream's address · E003 an
encryption key · E005 the encryption keys do not open what is stored · E006 an address
of the provider · E007 what makes a session · E008 a trusted proxy · E009 the address of
Redis · W001, W004 credentials would travel unencrypted · W002 `/v1` twice · W003 others
may look into DATA_DIR · W005 everybody is a trusted proxy
"""

import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
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
from claudeproxy.environment import Problem
from claudeproxy.errors import ClaudeProxyError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_MOST_NAMES = 10
_SESSION_PARTS = ("ip", "user_agent", "key")
_REDIS_SCHEMES = {"redis", "rediss", "unix"}
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# A sign-in that was begun lives for minutes; one that is lost is begun again.
_SHORT_LIVED = {"accounts.pendingauthorization"}


@register
def check_environment(**_: Any) -> Iterable[CheckMessage]:
    """Report each variable of the environment that could not be understood."""
    return [
        Error(
            f"{problem.variable}: {problem.message}.",
            hint=f"Correct {_place_of(problem)}; see .env.example.",
            id="claudeproxy.E001",
        )
        for problem in settings.ENVIRONMENT_PROBLEMS
    ]


def _place_of(problem: Problem) -> str:
    if problem.variable == ".env":
        return ".env, beside manage.py"
    return f"{problem.variable} in the environment or in .env"


@register
def check_data_dir(**_: Any) -> Iterable[CheckMessage]:
    """What the gateway writes is its owner's alone, also where it was there before."""
    mode = conf.data_dir.stat().st_mode
    if not mode & _OTHERS:
        return []
    return [
        Warning(
            f"DATA_DIR: others than its owner may use {conf.data_dir} "
            f"(mode {stat.S_IMODE(mode):04o}), which holds keys and the database.",
            hint=f"chmod 700 {conf.data_dir}",
            id="claudeproxy.W003",
        )
    ]


@register
def check_upstream(**_: Any) -> Iterable[CheckMessage]:
    """The upstream is an http(s) address and nothing more."""
    hint = "Set UPSTREAM_BASE_URL to something like https://api.anthropic.com"
    text = conf.upstream_base_url
    if wrong := _what_is_wrong(text):
        return [_upstream_error(wrong, hint)]
    url = urlsplit(text)
    if "?" in text or "#" in text or "@" in url.netloc:
        return [_upstream_error("may not hold a user, a query or a fragment", hint)]
    if _is_open(text):
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
def check_provider(**_: Any) -> Iterable[CheckMessage]:
    """The provider's addresses, and the way back from it, are http(s) addresses."""
    values = {
        "OAUTH_AUTHORIZE_URL": conf.oauth_authorize_url,
        "OAUTH_TOKEN_URL": conf.oauth_token_url,
        "OAUTH_REDIRECT_URI": conf.oauth_redirect_uri,
    }
    for name, text in values.items():
        if not text:
            continue  # whoever needs it says so
        wrong = _what_is_wrong(text)
        if not wrong and ("#" in text or "@" in urlsplit(text).netloc):
            wrong = "may not hold a user or a fragment"  # RFC 6749 sections 3.1 and 3.2
        if wrong:
            yield Error(
                f"{name} {wrong}.",
                hint=f"Set {name} to the whole address, such as https://host/path, or "
                "leave it empty. docs/accounts.md says where it comes from.",
                id="claudeproxy.E006",
            )
        elif name == "OAUTH_TOKEN_URL" and _is_open(text):
            yield Warning(
                f"{name} uses http://: refresh tokens would travel unencrypted.",
                hint=f"Set {name} to an address that begins with https://",
                id="claudeproxy.W004",
            )


@register
def check_session_identity(**_: Any) -> Iterable[CheckMessage]:
    """A session is made by something, and by what the gateway knows."""
    parts = conf.session_identity
    wrong = [part for part in parts if part not in _SESSION_PARTS]
    twice = [part for part, count in Counter(parts).items() if count > 1]
    if parts and not wrong and not twice:
        return []
    what = (
        f"{(wrong or twice)[0]!r} is not known" if wrong else "something is there twice"
    )
    if not parts:
        what = "there is nothing by which sessions could be told apart"
    return [
        Error(
            f"SESSION_IDENTITY: {what}.",
            hint="Set SESSION_IDENTITY to one or more of "
            f"{', '.join(_SESSION_PARTS)}, separated by commas.",
            id="claudeproxy.E007",
        )
    ]


@register
def check_trusted_proxies(**_: Any) -> Iterable[CheckMessage]:
    """Trusted proxies are addresses or networks, and not everybody."""
    for text in conf.trusted_proxies:
        try:
            network = ip_network(text)
        except ValueError:
            yield Error(
                f"TRUSTED_PROXIES: {text!r} is neither an address nor a network "
                "whose last bits are zero.",
                hint="Set TRUSTED_PROXIES to something like "
                "127.0.0.1,10.0.0.0/8,fd00::/8",
                id="claudeproxy.E008",
            )
            continue
        if network.prefixlen == 0:
            yield Warning(
                f"TRUSTED_PROXIES: {text} is everybody, so that anybody may claim to "
                "call from anywhere.",
                hint="Set TRUSTED_PROXIES to the addresses of your own proxies.",
                id="claudeproxy.W005",
            )


@register
def check_redis(**_: Any) -> Iterable[CheckMessage]:
    """Redis, if there is one, has an address that can be used."""
    if not conf.redis_url or _is_redis_address(conf.redis_url):
        return []
    # The value is not repeated: it may hold a password.
    return [
        Error(
            "REDIS_URL is not the address of a Redis.",
            hint="Set REDIS_URL to something like redis://host:6379/0, "
            "rediss://user:password@host:6379/0 or unix:///path/to/socket, or leave "
            "it empty to keep sessions in the database.",
            id="claudeproxy.E009",
        )
    ]


def _is_redis_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        host, _port = url.hostname, url.port
    except ValueError:
        return False
    if not text.isprintable() or " " in text or url.scheme not in _REDIS_SCHEMES:
        return False
    if url.scheme == "unix":
        return url.path.startswith("/") and len(url.path) > 1
    database = url.path.strip("/")
    return bool(host) and (not database or database.isdecimal())


def _what_is_wrong(text: str) -> str:
    """Say why *text* is no http(s) address; empty if it is one."""
    try:
        url = urlsplit(text)
        host, _port = url.hostname, url.port
    except ValueError:
        return "is not a valid address"
    if not text.isprintable() or " " in text or "\\" in text:
        return "has blanks or others in it"
    if url.scheme not in {"http", "https"} or not host:
        return "must begin with https:// or http:// and a host"
    return ""


def _is_open(text: str) -> bool:
    """Would others see what is sent to this address?"""
    url = urlsplit(text)
    return url.scheme == "http" and url.hostname not in _LOOPBACK


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
