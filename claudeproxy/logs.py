"""How log lines look: one JSON object a line for machines, colours for people.

structlog writes straight to standard error; records of the standard library (Django,
uvicorn, django-q2, aiohttp) are rendered by the same processors, so that a log has one
shape.
"""

import contextlib
import json
import logging
import logging.config
import sys
from typing import Any

import msgspec
import structlog
from structlog.typing import Processor


def configure(*, level: str, as_json: bool) -> None:
    """Set up structlog and the standard library's logging for this process."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *_renderers(as_json=as_json)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StderrLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(_standard_library(level, shared, as_json=as_json))


class _StderrLogger(structlog.WriteLogger):
    """Writes to standard error; a line that cannot be written is let go.

    A full disk or a closed pipe must not fail the request that wanted to say something.
    """

    def __init__(self, *_: Any) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warning = error = critical = exception = msg


def _renderers(*, as_json: bool) -> list[Processor]:
    # Tracebacks without local variables: those hold keys, credentials and contents.
    if not as_json:
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    return [
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]


def _to_json(event: Any, **_: Any) -> str:
    # What JSON cannot hold is shown as text; a log line is never lost over it.
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except UnicodeEncodeError:  # half a character, as file names may hold
        return json.dumps(event, default=repr)


def _standard_library(
    level: str, shared: list[Processor], *, as_json: bool
) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structlog": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*shared, structlog.stdlib.add_logger_name],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *_renderers(as_json=as_json),
                ],
            }
        },
        "filters": {
            "without_traceback": {"()": lambda: _without_traceback},
            "is_no_broken_answer": {"()": lambda: _is_no_broken_answer},
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "structlog"}
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # One line for each request is written by the gateway itself.
            "django-q": {"level": "WARNING"},  # several lines a minute when idle
            "django.security.DisallowedHost": {"filters": ["without_traceback"]},
            "httpcore": {"level": "WARNING"},  # it would show headers
            "httpx": {"level": "WARNING"},
            "httpx2": {"level": "WARNING"},  # the official SDK, in the demo
            "uvicorn.error": {
                "level": "WARNING",
                "filters": ["is_no_broken_answer"],
            },
        },
    }


def _without_traceback(record: logging.LogRecord) -> bool:
    # Any stranger can cause it, as often as they like, and it is no fault of ours.
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    record.exc_info = record.exc_text = None
    return True


def _is_no_broken_answer(record: logging.LogRecord) -> bool:
    # An answer that breaks off upstream is left incomplete on purpose, so that it never
    # looks whole to the caller. The line of the request says so: `end`.
    return record.msg != "ASGI callable returned without completing response."
