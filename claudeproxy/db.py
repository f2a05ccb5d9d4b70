"""The one door from async code to the ORM.

Async code owns no transaction and no connection: it hands a whole unit of work to
`run`, which does it in a thread of a small pool and gives the connection back when the
unit ends. Django's own `sync_to_async` would tie a connection to the request for as
long as its answer streams.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import close_old_connections, connections

T = TypeVar("T")

# Two threads: a slow write does not hold up the reload of the pool.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="orm")

# For work that waits for somebody else, such as the provider.
_long_threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="orm-long")

# For work that may have to wait for a lock of another worker, or of another machine.
_apart_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="orm-apart")


async def run(work: Callable[[], T]) -> T:
    """Do *work* in a thread that may use the ORM; return what it returns."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _unit, work)


async def run_long(work: Callable[[], T]) -> T:
    """Do work that may take seconds, out of the way of the rest."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_long_threads, _unit, work)


async def run_apart(work: Callable[[], T]) -> T:
    """Do work that may hang on what others hold: it holds up none of the rest."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_apart_threads, _unit, work)


def _unit(work: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return work()
    finally:
        connections.close_all()
