"""Something that is done again and again while a worker lives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def repeated(
    step: Callable[[], Awaitable[None]], *, seconds: float
) -> AsyncIterator[None]:
    """Do *step* every so many seconds until the context ends.

    A step that fails is logged, and is not the last.
    """

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await step()
            except Exception:  # noqa: BLE001  # the task's outer edge
                _log.exception("background_step_failed", step=repr(step))

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
