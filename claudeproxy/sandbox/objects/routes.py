"""Which call of the API is for which object."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from claudeproxy.sandbox import calls
from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects import batches, files, skills

Handler = Callable[[Call, Account], Reply]

FILES_PATH: Final = "/v1/files"
SKILLS_PATH: Final = "/v1/skills"
# The star stands for one part of the path, which the handler gets.
ROUTES: Final[Mapping[str, Mapping[str, Callable[..., Reply]]]] = {
    batches.PATH: {"POST": batches.create, "GET": batches.listing},
    f"{batches.PATH}/*": {"GET": batches.retrieve, "DELETE": batches.delete},
    f"{batches.PATH}/*/cancel": {"POST": batches.cancel},
    f"{batches.PATH}/*/results": {"GET": batches.results},
    FILES_PATH: {"POST": files.upload, "GET": files.listing},
    f"{FILES_PATH}/*": {"GET": files.retrieve, "DELETE": files.delete},
    f"{FILES_PATH}/*/content": {"GET": files.content},
    SKILLS_PATH: {"POST": skills.create, "GET": skills.listing},
    f"{SKILLS_PATH}/*": {"GET": skills.retrieve, "DELETE": skills.delete},
    f"{SKILLS_PATH}/*/versions": {
        "POST": skills.create_version,
        "GET": skills.list_versions,
    },
    f"{SKILLS_PATH}/*/versions/*": {
        "GET": skills.retrieve_version,
        "DELETE": skills.delete_version,
    },
    f"{SKILLS_PATH}/*/versions/*/content": {"GET": skills.version_content},
}
PATTERNS: Final = [
    (re.compile(path.replace("*", "([^/]+)")), handlers)
    for path, handlers in ROUTES.items()
]
MEGABYTE: Final = 1024 * 1024
UPLOAD_LIMITS: Final = {
    batches.create: 256 * MEGABYTE,
    files.upload: 500 * MEGABYTE,
    skills.create: 32 * MEGABYTE,
    skills.create_version: 32 * MEGABYTE,
}


def find(path: str) -> Mapping[str, Handler]:
    """Find what answers at a path, by method.

    Errors: ApiError 404.
    """
    for pattern, handlers in PATTERNS:
        match = pattern.fullmatch(path)
        if match is not None:
            return {
                method: _bind(handler, match.groups())
                for method, handler in handlers.items()
            }
    raise ApiError(404, "Not found")


def _bind(handler: Callable[..., Reply], names: Sequence[str]) -> Handler:
    def run(call: Call, account: Account) -> Reply:
        if call.method != "GET" and call.step.prevents_work:
            # Nobody gets this answer, since the connection breaks first.
            return calls.answer(call, 200, b"")
        return handler(call, account, *names)

    return run


def upload_limit(method: str, path: str) -> int | None:
    """Say how many bytes a body may have that goes to disk, None if none does."""
    if method != "POST":
        return None
    for pattern, handlers in PATTERNS:
        if pattern.fullmatch(path):
            return UPLOAD_LIMITS.get(handlers["POST"]) if "POST" in handlers else None
    return None
