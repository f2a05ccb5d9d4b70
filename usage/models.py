"""What was asked of the gateway and what it cost: request by request, and summed up.

Accounts and keys stand here by id and name, not by foreign key: what they used remains
when they are deleted.
"""

from decimal import Decimal
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from usage.fields import DollarsField
from usage.outcome import EndReason, Outcome
from usage.rows import NOBODY


class RequestRow(models.Model):
    """One request and how it ended; written once, by the ledger."""

    request_id = models.CharField(max_length=64, unique=True)
    started_at = models.DateTimeField()
    hour = models.DateTimeField()  # the one it started in: what roll-ups group by

    endpoint = models.CharField(max_length=200)
    is_stream = models.BooleanField(default=False)
    key_id = models.BigIntegerField(default=NOBODY)
    key_name = models.CharField(max_length=100, blank=True, default="")
    account_id = models.BigIntegerField(default=NOBODY)
    account_name = models.CharField(max_length=100, blank=True, default="")
    account_kind = models.CharField(max_length=10, blank=True, default="")
    organization_uuid = models.CharField(max_length=200, blank=True, default="")
    session_digest = models.CharField(max_length=64, blank=True, default="")
    routing = models.CharField(max_length=20, blank=True, default="")
    model_asked = models.CharField(max_length=200, blank=True, default="")
    # The one that answered; if none did, the one that an account was asked for.
    model = models.CharField(max_length=200, blank=True, default="")

    status = models.IntegerField(default=0)  # 0: none was sent
    end_reason = models.CharField(max_length=20, choices=EndReason.choices)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    stop_reason = models.CharField(max_length=200, blank=True, default="")
    attempts = models.JSONField(default=list)  # those that failed, in their order
    failed_attempts = models.IntegerField(default=0)

    # Milliseconds, and their buckets of `histogram`.
    first_byte_ms = models.BigIntegerField(null=True)
    first_byte_bucket = models.SmallIntegerField(null=True)
    duration_ms = models.BigIntegerField(null=True)  # null: nobody saw the end
    duration_bucket = models.SmallIntegerField(null=True)
    request_bytes = models.BigIntegerField(default=0)
    answer_bytes = models.BigIntegerField(default=0)

    input_tokens = models.BigIntegerField(default=0)
    write_5m_tokens = models.BigIntegerField(default=0)
    write_1h_tokens = models.BigIntegerField(default=0)
    read_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    web_searches = models.BigIntegerField(default=0)
    web_fetches = models.BigIntegerField(default=0)
    service_tier = models.CharField(max_length=200, blank=True, default="")
    speed = models.CharField(max_length=200, blank=True, default="")
    inference_geo = models.CharField(max_length=200, blank=True, default="")
    is_incomplete = models.BooleanField(default=False)  # the end of it is not known

    cost = DollarsField(null=True)
    price_date = models.DateField(null=True)
    # By the list, but covered by a plan.
    is_notional = models.BooleanField(default=False)
    is_unpriced = models.BooleanField(default=False)  # used something without a price

    class Meta:
        verbose_name = "request"
        ordering: ClassVar = ["-started_at", "-pk"]
        indexes: ClassVar = [
            models.Index(fields=["hour"], name="usage_row_hour"),
            models.Index(fields=["-started_at", "-id"], name="usage_row_time"),
            models.Index(fields=["key_id", "-started_at"], name="usage_row_key"),
            models.Index(
                fields=["account_id", "-started_at"], name="usage_row_account"
            ),
            models.Index(fields=["model", "-started_at"], name="usage_row_model"),
            models.Index(fields=["outcome", "-started_at"], name="usage_row_outcome"),
        ]

    def __str__(self) -> str:
        return self.request_id


class Totals(models.Model):
    """What requests of one account, key, model and outcome come to."""

    account_id = models.BigIntegerField()
    account_name = models.CharField(max_length=100)
    key_id = models.BigIntegerField()
    key_name = models.CharField(max_length=100)
    model = models.CharField(max_length=200)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)

    requests = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    write_5m_tokens = models.BigIntegerField()
    write_1h_tokens = models.BigIntegerField()
    read_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    web_searches = models.BigIntegerField()
    cost = DollarsField()
    notional_cost = DollarsField()  # the part of it that a plan covers
    unpriced = models.BigIntegerField()  # requests
    incomplete = models.BigIntegerField()  # requests
    failed_attempts = models.BigIntegerField()
    first_byte_ms = models.BigIntegerField()
    duration_ms = models.BigIntegerField()
    request_bytes = models.BigIntegerField()
    answer_bytes = models.BigIntegerField()
    # How many requests are in which bucket of `histogram`.
    first_byte_counts = models.JSONField()
    duration_counts = models.JSONField()

    class Meta:
        abstract = True


_GROUP = ("account_id", "account_name", "key_id", "key_name", "model", "outcome")


class HourlyUsage(Totals):
    """The sums of an hour; kept when its requests are pruned."""

    hour = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["hour", *_GROUP], name="usage_hour_group_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:00}"


class DailyUsage(Totals):
    """The sums of a day, in UTC."""

    day = models.DateField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["day", *_GROUP], name="usage_day_group_once"
            )
        ]
        # For the page of one account or key.
        indexes: ClassVar = [
            models.Index(fields=["account_id", "day"], name="usage_day_account"),
            models.Index(fields=["key_id", "day"], name="usage_day_key"),
        ]

    def __str__(self) -> str:
        return str(self.day)


class HourlyMarginal(Totals):
    """The sums of an hour by one thing alone: all, accounts, keys, models or outcomes.

    What it is not by is empty. Most reports need no more, and these rows are few.
    """

    hour = models.DateTimeField()
    dimension = models.CharField(max_length=10, blank=True)  # empty: all

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["dimension", "hour", *_GROUP], name="usage_hour_part_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:00} by {self.dimension or 'nothing'}"


class DailyMarginal(Totals):
    """The same of a day, in UTC."""

    day = models.DateField()
    dimension = models.CharField(max_length=10, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["dimension", "day", *_GROUP], name="usage_day_part_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} by {self.dimension or 'nothing'}"


class RollupState(models.Model):
    """How far roll-ups and pruning have come; there is one row."""

    # Requests up to this id are in the roll-ups.
    rolled_to = models.BigIntegerField(default=0)
    # Requests of hours before this one are pruned, or about to be.
    pruned_before = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"rolled up to {self.rolled_to}"


def _rate(help_text: str = "") -> "models.DecimalField[Decimal, Decimal]":
    return models.DecimalField(
        max_digits=12,
        decimal_places=6,
        validators=[MinValueValidator(0)],
        help_text=help_text,
    )


def _optional_rate() -> "models.DecimalField[Decimal | None, Decimal | None]":
    return models.DecimalField(
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
    )


class PriceRow(models.Model):
    """What a model costs from a day on, in US dollars per million tokens."""

    model = models.CharField(
        max_length=100,
        help_text="A model's id without its date, or the beginning of one and a *.",
    )
    effective_from = models.DateField()
    is_own = models.BooleanField(
        default=True,
        editable=False,
        help_text="Entered or changed here; an update of the gateway leaves it alone.",
    )

    input = _rate()
    output = _rate()
    write_5m = _rate("Written to the cache for five minutes.")
    write_1h = _rate("Written to the cache for an hour.")
    read = _rate("Read from the cache.")

    fast_input = _optional_rate()
    fast_output = _optional_rate()
    fast_write_5m = _optional_rate()
    fast_write_1h = _optional_rate()
    fast_read = _optional_rate()

    tier_above = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Prompts of more tokens than this have the tier's prices.",
    )
    tier_input = _optional_rate()
    tier_output = _optional_rate()
    tier_write_5m = _optional_rate()
    tier_write_1h = _optional_rate()
    tier_read = _optional_rate()

    web_search = models.DecimalField(
        max_digits=12,
        decimal_places=6,
        default=Decimal("0.01"),
        validators=[MinValueValidator(0)],
        help_text="For each search.",
    )
    batch_factor = models.DecimalField(
        max_digits=6,
        decimal_places=4,
        default=Decimal("0.5"),
        validators=[MinValueValidator(0)],
    )
    us_factor = models.DecimalField(
        max_digits=6,
        decimal_places=4,
        default=Decimal("1.1"),
        validators=[MinValueValidator(0)],
        help_text="For tokens of requests that were kept in the US.",
    )

    class Meta:
        verbose_name = "price"
        ordering: ClassVar = ["model", "-effective_from"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["model", "effective_from"], name="price_once_a_day"
            ),
            models.CheckConstraint(
                name="price_fast_is_whole",
                condition=Q(
                    fast_input__isnull=True,
                    fast_output__isnull=True,
                    fast_write_5m__isnull=True,
                    fast_write_1h__isnull=True,
                    fast_read__isnull=True,
                )
                | Q(
                    fast_input__isnull=False,
                    fast_output__isnull=False,
                    fast_write_5m__isnull=False,
                    fast_write_1h__isnull=False,
                    fast_read__isnull=False,
                ),
                violation_error_message="Fast prices: give all five or none.",
            ),
            models.CheckConstraint(
                name="price_tier_is_whole",
                condition=Q(
                    tier_above__isnull=True,
                    tier_input__isnull=True,
                    tier_output__isnull=True,
                    tier_write_5m__isnull=True,
                    tier_write_1h__isnull=True,
                    tier_read__isnull=True,
                )
                | Q(
                    tier_above__isnull=False,
                    tier_input__isnull=False,
                    tier_output__isnull=False,
                    tier_write_5m__isnull=False,
                    tier_write_1h__isnull=False,
                    tier_read__isnull=False,
                ),
                violation_error_message="The tier: give all of it or nothing.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.effective_from}"

    def clean(self) -> None:
        if "*" in self.model.removesuffix("*"):
            raise ValidationError({"model": "A * can only stand at the end."})
