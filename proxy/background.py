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

    A step that fails is not the last; of failures in a row the first is logged.
    """

    async def repeat() -> None:
        is_failing = False
        while True:
            await asyncio.sleep(seconds)
            try:
                await step()
            except Exception:  # noqa: BLE001  # the task's outer edge
                if not is_failing:
                    _log.exception("background_step_failed", step=repr(step))
                is_failing = True
            else:
                is_failing = False

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
