"""The process that runs background jobs: a django-q2 cluster that cannot run wild.

The library's own command leaves its workers running when its main process is killed,
never ends when its whole process group is told to stop, and forks with whatever
database connections are open. Here the kernel ties each process to its parent, signals
are waited for instead of handled in the middle of something, and the database is made
ready for forks.
"""

import signal

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections
from django_q.cluster import Cluster

from claudeproxy import process, schedules

_log = structlog.get_logger(__name__)

# Beyond the time a job may take; the rest of the way out is a matter of a second or two.
_STOP_MARGIN_SECONDS = 5


def run() -> int:
    """Run the cluster until SIGTERM or SIGINT; return the exit code."""
    process.tie_descendants()
    # Blocked for good: each is taken by `sigwait` when this process is ready for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, process.SIGNALS)
    with process.forkable_database():
        _enqueue_first_jobs()
        return _guard(Cluster())


def _enqueue_first_jobs() -> None:
    try:
        schedules.enqueue_at_start()
    except DatabaseError as error:
        # They also come with the schedule, once the database is back.
        _log.warning("first_jobs_not_queued", error=type(error).__name__)
    finally:
        connections.close_all()  # or the cluster would inherit one


def _guard(cluster: Cluster) -> int:
    try:
        cluster.start()
    except RuntimeError as error:
        _log.error("cluster_not_started", error=str(error))
        return 1
    while signal.sigwait(process.SIGNALS) == signal.SIGCHLD:
        if not cluster.sentinel.is_alive():
            return 1  # it never ends unless it is told to
    _stop(cluster)
    return 0


def _stop(cluster: Cluster) -> None:
    # Who signals a whole process group hits the sentinel as well. It is dead within
    # moments then, and telling it to stop would wait for ever on a lock that it held.
    cluster.sentinel.join(timeout=0.2)
    # A cluster that hangs does not stop either; the alarm's default is to end this
    # process, and with it the others.
    signal.alarm(settings.Q_CLUSTER["timeout"] + _STOP_MARGIN_SECONDS)
    # A second Ctrl-C does the same at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    cluster.stop()
