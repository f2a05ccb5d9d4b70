"""What cells of the accounts' admin pages show: times, badges, models."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html

from accounts.status import AccountStatus


@dataclass(frozen=True)
class ModelRow:
    """A model as the page of an account prints it."""

    id: str
    name: str
    lifecycle: str
    context: str
    output: str
    features: str
    details: str


def model_rows(models: Iterable[dict[str, Any]] | None) -> list[ModelRow] | None:
    return None if models is None else [model_row(model) for model in models]


def model_row(model: dict[str, Any]) -> ModelRow:
    features = [str(name).replace("_", " ") for name in model.get("features") or ()]
    return ModelRow(
        id=model["id"],
        name=model.get("name") or model["id"],
        lifecycle=model.get("lifecycle") or "",
        context=thousands(model.get("max_input_tokens")),
        output=thousands(model.get("max_tokens")),
        features=", ".join(name for name in features if "." not in name),
        details=", ".join(name for name in features if "." in name),
    )


def thousands(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def with_line(words: str, identifier: str) -> str:
    """A name with a line below it, as far as they are known."""
    if not (words and identifier):
        return words or identifier or "not known"
    return format_html('{}<span class="identifier">{}</span>', words, identifier)


def status_badge(status: str) -> str:
    return badge(status, AccountStatus(status).label)


def badge(status: str, word: str) -> str:
    return render_to_string(
        "claudeproxy/_status_badge.html", {"status": status, "word": word}
    )


def is_over(at: datetime | None) -> bool:
    return at is not None and at <= timezone.now()


def when(at: datetime | None, otherwise: str = "") -> str:
    return render_to_string(
        "claudeproxy/_when.html",
        {"at": at, "now": timezone.now(), "otherwise": otherwise},
    )


def when_short(at: datetime | None, otherwise: str = "") -> str:
    return render_to_string(
        "claudeproxy/_when_short.html",
        {"at": at, "now": timezone.now(), "otherwise": otherwise},
    )
