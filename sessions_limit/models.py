"""Client sessions as the database keeps them; `backends/database.py` writes them."""

from typing import ClassVar

from django.db import models


class SessionScope(models.Model):
    """Sessions under one limit. Who locks this row decides who gets in."""

    name = models.CharField(max_length=40, primary_key=True)
    # The latest time that was seen here: shows when the clock was set back.
    clock_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class ClientSession(models.Model):
    """One client, alive until `expires_at`."""

    scope = models.CharField(max_length=40)
    digest = models.CharField(max_length=32)
    # Whose it is, for people. No foreign key: a key may go, its sessions are history.
    key_id = models.BigIntegerField()
    key_name = models.CharField(max_length=100)
    ip = models.CharField(max_length=50, blank=True)
    user_agent = models.CharField(max_length=200, blank=True)

    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    requests = models.PositiveBigIntegerField(default=0)
    # The last few that served it, the latest first.
    account_names = models.JSONField(default=list)
    # worker → [running requests, until when that counts (ms), number of the report]
    holds = models.JSONField(default=dict)
    in_flight = models.PositiveIntegerField(default=0)

    # How often it was revoked: a worker that knows fewer has not heard of the last.
    generation = models.PositiveIntegerField(default=0)
    revoked_at = models.DateTimeField(null=True, blank=True)
    blocked_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["scope", "digest"], name="client_session_is_one"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["scope", "expires_at"], name="client_session_alive"),
            models.Index(fields=["expires_at"], name="client_session_ended"),
            models.Index(
                fields=["revoked_at"],
                name="client_session_revoked",
                condition=models.Q(revoked_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.digest[:8]}"
