"""The process that runs background jobs: a django-q2 cluster that cannot run wild.

The library's own command leaves its workers running when its main process is killed,
never ends when its whole process group is told to stop, and forks with whatever
database connections are open. Here the kernel ties each process to its parent, signals
are waited for instead of handled in the middle of something, and the database is made
ready for forks.
"""

import signal

import structlog
from django.db import Error as DatabaseError
from django.db import connections
from django_q.cluster import Cluster
from django_q.conf import Conf

from claudeproxy import process, schedules

_log = structlog.get_logger(__name__)

# Beyond the time a job may take; the rest of the way out takes a second or two.
_STOP_MARGIN_SECONDS = 5


def run() -> int:
    """Run the cluster until a signal to stop; return the exit code."""
    process.tie_descendants()
    with process.forkable_database():
        _enqueue_first_jobs()
        return _run(Cluster())


def _enqueue_first_jobs() -> None:
    try:
        schedules.enqueue_at_start()
    except DatabaseError as error:
        # They also come with the schedule, once the database is back.
        _log.warning("first_jobs_not_queued", error=type(error).__name__)
    finally:
        connections.close_all()  # or the cluster would inherit one


def _run(cluster: Cluster) -> int:
    # While it starts, a signal simply ends this process, and with it the others.
    for number in process.STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    # But for one that a closing terminal sends to the whole group: blocked in all that
    # are forked from here on, it waits until this process takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        cluster.start()
    except RuntimeError as error:
        _log.error("cluster_not_started", error=str(error))
        return 1
    signal.pthread_sigmask(signal.SIG_BLOCK, process.SIGNALS)
    _log.info("jobs_running")
    while cluster.sentinel.is_alive():
        if signal.sigwait(process.SIGNALS) != signal.SIGCHLD:
            _stop(cluster)
            return 0
    return 1  # it never ends unless it is told to


def _stop(cluster: Cluster) -> None:
    _log.info("jobs_stopping")
    # Who signals a whole process group hits the sentinel as well. It is dead within
    # moments then, and telling it to stop would wait for ever on a lock that it held.
    cluster.sentinel.join(timeout=0.2)
    # A cluster that hangs does not stop either; the alarm's default is to end this
    # process, and with it the others.
    signal.alarm(Conf.TIMEOUT + _STOP_MARGIN_SECONDS)
    # A second Ctrl-C does the same at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    cluster.stop()
