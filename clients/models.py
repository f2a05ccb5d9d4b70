"""Who may call the gateway."""

from datetime import datetime
from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from clients.querysets import ClientKeyQuerySet

MOST_SESSIONS = 100_000


class ClientKeyRole(models.TextChoices):
    USER = "user", "user"  # may call Claude
    ADMIN = "admin", "admin"  # may also use the admin REST API


class ClientKey(models.Model):
    """A key that the gateway issued; only its digest is kept."""

    name = models.CharField(max_length=100, unique=True)
    role = models.CharField(
        max_length=5, choices=ClientKeyRole.choices, default=ClientKeyRole.USER
    )
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text="The key ends then; empty: never."
    )
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    session_limit = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_SESSIONS)],
        help_text="How many sessions this key may have at a time, apart from all "
        "others; empty: it shares the gateway's limit with them.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[ClientKeyQuerySet] = ClientKeyQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="client_key_role_is_known",
                condition=Q(role__in=ClientKeyRole.values),
            ),
            models.CheckConstraint(
                name="client_key_session_limit_is_positive",
                condition=Q(session_limit__isnull=True) | Q(session_limit__gte=1),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (
            self.expires_at is None or now < self.expires_at
        )
