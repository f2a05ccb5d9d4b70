"""Where the gateway is, as a caller sees it."""

import re

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

# A name, an address, or one in brackets, and a port.
_HOST = re.compile(
    r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?"
)


def base_url(request: HttpRequest) -> str:
    """Return scheme, host and port of a request, for an address in its own answer.

    ALLOWED_HOSTS guards pages for people; a caller with a key may name us otherwise,
    and the answer goes to nobody else. What is no host at all does not count.
    """
    try:
        host = request.get_host()
    except DisallowedHost:
        host = request.META.get("HTTP_HOST", "")
        if not _HOST.fullmatch(host):
            host = f"{request.META['SERVER_NAME']}:{request.META['SERVER_PORT']}"
    return f"{request.scheme}://{host}"
