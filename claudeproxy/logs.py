"""How log lines look: one JSON object a line for machines, colours for people.

structlog writes straight to standard error; records of the standard library (Django,
uvicorn, django-q2, aiohttp) are rendered by the same processors, so that a log has one
shape.
"""

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
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(_standard_library(level, shared, as_json=as_json))


def _renderers(*, as_json: bool) -> list[Processor]:
    if not as_json:
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [
        structlog.processors.dict_tracebacks,
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]


def _to_json(event: Any, **_: Any) -> str:
    # What JSON cannot hold is shown as text; a log line is never lost over it.
    return msgspec.json.encode(event, enc_hook=repr).decode()


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
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "structlog"}
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # One line for each request is written by the gateway itself.
            "httpx": {"level": "WARNING"},
            "httpx2": {"level": "WARNING"},  # the official SDK, in the demo
            "uvicorn.error": {"level": "WARNING"},
        },
    }
