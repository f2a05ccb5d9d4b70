"""The models an account can have, in the shape of the models endpoint."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from claudeproxy.sandbox import paging
from claudeproxy.sandbox.errors import ApiError


class Support(msgspec.Struct, frozen=True):
    """Whether a model can do one thing."""

    supported: bool = True


class Effort(msgspec.Struct, frozen=True):
    """Which levels of effort a model knows."""

    supported: bool = True
    low: Support = Support()
    medium: Support = Support()
    high: Support = Support()
    xhigh: Support = Support()
    max: Support = Support()


class ThinkingTypes(msgspec.Struct, frozen=True):
    """Which ways of thinking a model knows."""

    adaptive: Support = Support()
    between_tools: Support = Support()
    disabled: Support = Support()
    enabled: Support = Support()


class Thinking(msgspec.Struct, frozen=True):
    """Whether and how a model thinks."""

    supported: bool = True
    types: ThinkingTypes = ThinkingTypes()


class ContextManagement(msgspec.Struct, frozen=True):
    """Which strategies of context management a model knows."""

    supported: bool = True
    clear_thinking_20251015: Support = Support()
    clear_tool_uses_20250919: Support = Support()
    compact_20260112: Support = Support()


class ServerTools(msgspec.Struct, frozen=True):
    """Which tools run on the API's side."""

    supported: bool = False
    code_execution: Support = Support(False)
    web_search: Support = Support(False)


class Capabilities(msgspec.Struct, frozen=True):
    """What a model can do; every key is always there."""

    batch: Support = Support()
    citations: Support = Support()
    code_execution: Support = Support(False)
    context_management: ContextManagement = ContextManagement()
    effort: Effort = Effort()
    image_input: Support = Support()
    pdf_input: Support = Support()
    server_tools: ServerTools = ServerTools()
    structured_outputs: Support = Support()
    thinking: Thinking = Thinking()


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the models endpoint."""

    type: str = "model"
    id: str
    display_name: str
    created_at: str = "1970-01-01T00:00:00Z"
    lifecycle: str = "active"
    line: str | None = None
    max_input_tokens: int | None = 200_000
    max_tokens: int | None = 64_000
    deprecated_at: str | None = None
    retires_at: str | None = None
    capabilities: Capabilities = Capabilities()


def _large(model_id: str, name: str, line: str, created_at: str) -> ModelInfo:
    return ModelInfo(
        id=model_id,
        display_name=name,
        line=line,
        created_at=created_at,
        max_input_tokens=1_000_000,
        max_tokens=128_000,
    )


KNOWN: Final = {
    info.id: info
    for info in (
        _large("claude-fable-5-2", "Claude Fable 5.2", "fable", "2026-11-03T00:00:00Z"),
        _large("claude-opus-5-5", "Claude Opus 5.5", "opus", "2026-10-21T00:00:00Z"),
        _large(
            "claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", "2026-10-21T00:00:00Z"
        ),
        _large("claude-haiku-5-5", "Claude Haiku 5.5", "haiku", "2026-10-21T00:00:00Z"),
        ModelInfo(
            id="claude-haiku-4-5-20251001",
            display_name="Claude Haiku 4.5",
            line="haiku",
            created_at="2025-10-15T00:00:00Z",
        ),
        ModelInfo(
            id="claude-sonnet-4-5-20250929",
            display_name="Claude Sonnet 4.5",
            line="sonnet",
            created_at="2025-09-29T00:00:00Z",
            lifecycle="deprecated",
            deprecated_at="2026-08-31T00:00:00Z",
            retires_at="2026-11-30T00:00:00Z",
        ),
    )
}
ALIASES: Final = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}


def describe(model_id: str) -> ModelInfo:
    """Describe a model; one that the catalogue lacks gets plain, modest values."""
    return KNOWN.get(model_id) or ModelInfo(id=model_id, display_name=model_id)


def find(models: Mapping[str, ModelInfo], name: str) -> ModelInfo:
    """Find a model by id or alias among those of one account.

    Errors: ApiError 404, as for a model that does not exist at all.
    """
    info = models.get(name) or models.get(ALIASES.get(name, ""))
    if info is None:
        raise ApiError(404, f"model: {name}")
    return info


def page(
    models: Sequence[ModelInfo], query: Mapping[str, Sequence[str]]
) -> dict[str, object]:
    """Build one page of the model list.

    Shape: data, has_more, first_id, last_id; ids are null on an empty page.
    Errors: ApiError 400 for a bad limit or for an id that is not in the list.
    """
    wanted = query.get("lifecycle[]", ())
    found = {info.id: info for info in models if not wanted or info.lifecycle in wanted}
    return paging.by_cursor(found, query, "model")
