"""What the usage endpoints take and give."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from claudeproxy.serializers import KnownTextField, OneOfField, StrictSerializer
from usage import request_log
from usage.outcome import EndReason, Outcome
from usage.reports import By, Only
from usage.request_log import Place, Wanted

_DEFAULT_SPAN = timedelta(hours=24)
_DAY = timedelta(days=1)
# Beyond these, there is no usage, and calendars end.
_YEARS = range(2000, 2200)

# --- what comes in --------------------------------------------------------------------


@extend_schema_field(OpenApiTypes.STR)
class MomentField(serializers.Field):  # type: ignore[type-arg]
    """A time, or a whole day, whose beginning or end counts."""

    default_error_messages = {  # noqa: RUF012  # as the base class has it
        "invalid": "This must be a date or a time in ISO 8601, from the years 2000 to "
        "2199, such as 2026-11-25 or 2026-11-25T08:00:00Z."
    }

    def __init__(self, *, is_end: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._is_end = is_end

    def to_internal_value(self, data: Any) -> datetime:
        at = parse_moment(str(data), is_end=self._is_end)
        if at is None:
            self.fail("invalid")
        return at

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()


def parse_moment(text: str, *, is_end: bool) -> datetime | None:
    """Read a time, in UTC unless it says otherwise, or a day; None if it is neither."""
    try:
        day = parse_date(text)
        at = parse_datetime(text) if day is None else _edge(day, is_end=is_end)
        if at is None or at.year not in _YEARS:
            return None
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def _edge(day: date, *, is_end: bool) -> datetime:
    start = datetime.combine(day, time(), UTC)
    return start + _DAY if is_end else start


def find_id(what: str, text: str) -> int | None:
    """The id that a text is, or that it names; None if it is neither."""
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 19 else None
    return request_log.id_of(what, text)


def _require_id(what: str, text: str) -> int:
    found = find_id(what, text)
    if found is None:
        raise serializers.ValidationError(
            f"No request in the log is of {what} {text[:100]!r}. Give its id, or its "
            "name as the log has it."
        )
    return found


class _FilterSerializer(StrictSerializer):
    account = serializers.CharField(
        required=False, help_text="Id, or name as the log has it; 0 is none."
    )
    key = serializers.CharField(
        required=False, help_text="Id, or name as the log has it; 0 is no valid key."
    )
    model = serializers.CharField(required=False, help_text="As it answered.")
    outcome = OneOfField(Outcome.values, required=False)
    format = OneOfField(["json", "csv"], required=False, default="json")

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of Python.
        return {
            "from": MomentField(
                required=False,
                help_text="A date or a time in ISO 8601, UTC unless it says "
                "otherwise. 24 hours before `to` if left out.",
            ),
            "to": MomentField(
                required=False,
                is_end=True,
                help_text="Likewise; a date counts with the whole of its day. Now if "
                "left out.",
            ),
            **super().get_fields(),
        }

    def validate_account(self, text: str) -> int:
        return _require_id("account", text)

    def validate_key(self, text: str) -> int:
        return _require_id("key", text)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        until = attrs.get("to") or timezone.now()
        since = attrs.get("from") or until - _DEFAULT_SPAN
        if since >= until:
            raise serializers.ValidationError(
                {"from": ["This must be earlier than `to`, which is now if left out."]}
            )
        only = Only(
            account_id=attrs.get("account"),
            key_id=attrs.get("key"),
            model=attrs.get("model"),
            outcome=attrs.get("outcome"),
        )
        return {**attrs, "from": since, "to": until, "only": only}


class UsageFilterSerializer(_FilterSerializer):
    group_by = OneOfField([by.value for by in By], required=False)


class RequestFilterSerializer(_FilterSerializer):
    request_id = serializers.CharField(
        required=False, help_text="The whole of it, or how it begins."
    )
    cursor = serializers.CharField(
        required=False, help_text="Where the last page ended: as `next` has it."
    )
    page_size = serializers.IntegerField(
        required=False, default=50, min_value=1, max_value=500
    )

    def validate_cursor(self, text: str) -> Place:
        place = Place.parse(text)
        if place is None:
            raise serializers.ValidationError(
                "This is no place in the log. Follow `next` as it is given."
            )
        return place

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        request_id = attrs.get("request_id", "")
        wanted = Wanted(attrs["from"], attrs["to"], attrs["only"], request_id)
        return {**attrs, "wanted": wanted}


# --- what goes out --------------------------------------------------------------------


class AmountField(serializers.DecimalField):
    """US dollars, to a billionth, as a text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            max_digits=30,
            decimal_places=9,
            normalize_output=True,
            read_only=True,
            **options,
        )


class LineSerializer(serializers.Serializer[Any]):
    """What requests come to."""

    requests = serializers.IntegerField(read_only=True)
    input_tokens = serializers.IntegerField(read_only=True)
    output_tokens = serializers.IntegerField(read_only=True)
    cache_read_input_tokens = serializers.IntegerField(
        read_only=True, source="read_tokens"
    )
    cache_write_5m_input_tokens = serializers.IntegerField(
        read_only=True, source="write_5m_tokens"
    )
    cache_write_1h_input_tokens = serializers.IntegerField(
        read_only=True, source="write_1h_tokens"
    )
    web_searches = serializers.IntegerField(read_only=True)
    cost = AmountField(help_text="US dollars by the list, as a text.")
    notional_cost = AmountField(help_text="The part of it that a plan covers.")
    unpriced = serializers.IntegerField(
        read_only=True, help_text="Requests that used something without a price."
    )
    incomplete = serializers.IntegerField(
        read_only=True, help_text="Requests whose usage may not be all."
    )
    failed_attempts = serializers.IntegerField(read_only=True)
    request_bytes = serializers.IntegerField(read_only=True)
    answer_bytes = serializers.IntegerField(read_only=True)
    first_byte_p50_ms = serializers.FloatField(
        read_only=True, allow_null=True, source="first_byte.p50"
    )
    first_byte_p95_ms = serializers.FloatField(
        read_only=True, allow_null=True, source="first_byte.p95"
    )
    first_byte_p99_ms = serializers.FloatField(
        read_only=True, allow_null=True, source="first_byte.p99"
    )
    duration_p50_ms = serializers.FloatField(
        read_only=True, allow_null=True, source="duration.p50"
    )
    duration_p95_ms = serializers.FloatField(
        read_only=True, allow_null=True, source="duration.p95"
    )
    duration_p99_ms = serializers.FloatField(
        read_only=True, allow_null=True, source="duration.p99"
    )

    def to_representation(self, instance: Any) -> dict[str, Any]:
        # Percentiles are estimates: tenths of a millisecond would say too much.
        return {
            name: round(value) if isinstance(value, float) else value
            for name, value in super().to_representation(instance).items()
        }


class GroupSerializer(LineSerializer):
    group = serializers.SerializerMethodField(
        help_text="An hour, a day, an id (0: none), a model or an outcome."
    )
    name = KnownTextField(help_text="Of an account or a key, as it was called last.")

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        first = {name: fields.pop(name) for name in ("group", "name")}
        return {**first, **fields}

    def get_group(self, line: Any) -> str | int:
        group = line.group
        if isinstance(group, datetime):
            return group.isoformat().replace("+00:00", "Z")
        return group if isinstance(group, int) else str(group)


class UsageSerializer(serializers.Serializer[Any]):
    group_by = serializers.ChoiceField(
        [by.value for by in By], read_only=True, allow_null=True
    )
    total = LineSerializer(read_only=True)
    groups = GroupSerializer(many=True, read_only=True)

    def get_fields(self) -> dict[str, Any]:
        return {
            "from": serializers.DateTimeField(
                read_only=True, help_text="Sums are of whole hours: from here on,"
            ),
            "to": serializers.DateTimeField(
                read_only=True, help_text="and before this."
            ),
            **super().get_fields(),
        }


class LoggedRequestSerializer(serializers.Serializer[Any]):
    request_id = serializers.CharField(read_only=True)
    started_at = serializers.DateTimeField(read_only=True)
    account = KnownTextField()
    key = KnownTextField()
    model = KnownTextField()
    status = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="Null if none was sent."
    )
    end_reason = serializers.ChoiceField(EndReason.choices, read_only=True)
    attempts = serializers.IntegerField(read_only=True)
    input_tokens = serializers.IntegerField(read_only=True)
    output_tokens = serializers.IntegerField(read_only=True)
    cache_read_input_tokens = serializers.IntegerField(read_only=True)
    cache_write_5m_input_tokens = serializers.IntegerField(read_only=True)
    cache_write_1h_input_tokens = serializers.IntegerField(read_only=True)
    cost = AmountField(allow_null=True, help_text="Null if it has none.")
    first_byte_ms = serializers.IntegerField(read_only=True, allow_null=True)
    duration_ms = serializers.IntegerField(read_only=True, allow_null=True)
    bytes = serializers.IntegerField(read_only=True, help_text="Of the answer.")


class RequestPageSerializer(serializers.Serializer[Any]):
    next = serializers.URLField(
        read_only=True, allow_null=True, help_text="Null if this is the last page."
    )
    results = LoggedRequestSerializer(many=True, read_only=True)
