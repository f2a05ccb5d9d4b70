"""Accounts of the upstream, and what happened to them."""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from accounts.querysets import AccountQuerySet
from accounts.status import AccountKind, AccountStatus, ObjectKind
from claudeproxy.crypto import EncryptedField, Secret


class Account(models.Model):
    """One credential at the upstream.

    `status` alone says whether the account may serve; it is moved by `lifecycle`, never
    by assignment.
    """

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=10, choices=AccountKind.choices)
    status = models.CharField(
        max_length=12, choices=AccountStatus.choices, default=AccountStatus.ACTIVE
    )
    status_reason = models.CharField(max_length=300, default="added")
    status_changed_at = models.DateTimeField()
    rate_limited_until = models.DateTimeField(null=True, blank=True)
    recovered_at = models.DateTimeField(
        null=True, blank=True, help_text="When its last rate limit ended."
    )

    api_key = EncryptedField(null=True, blank=True)
    access_token = EncryptedField(null=True, blank=True)
    refresh_token = EncryptedField(null=True, blank=True)
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text="When the access token ends."
    )

    # Whose it is. The provider names no holder of an API key; its digest stands in.
    organization_uuid = models.CharField(max_length=200, blank=True, default="")
    organization_name = models.CharField(max_length=200, blank=True, default="")
    holder = models.CharField(max_length=200, blank=True, default="")
    holder_name = models.CharField(max_length=200, blank=True, default="")

    # The models it may use, as `capabilities` reads them; null: not known.
    capabilities = models.JSONField(null=True, blank=True)
    capabilities_at = models.DateTimeField(null=True, blank=True)

    last_used_at = models.DateTimeField(null=True, blank=True)

    # For `tokens` alone.
    last_refresh_at = models.DateTimeField(null=True, blank=True)
    last_refresh_error = models.CharField(max_length=300, blank=True, default="")
    refresh_failures = models.PositiveIntegerField(default=0)
    refresh_retry_at = models.DateTimeField(null=True, blank=True)
    # The last refresh token may be used up: nobody knows whether it was taken.
    is_refresh_doubtful = models.BooleanField(default=False)
    refresh_lease = models.CharField(max_length=16, blank=True, default="")
    refresh_lease_until = models.DateTimeField(null=True, blank=True)
    sent_refresh_digest = models.CharField(max_length=64, blank=True, default="")
    refused_refresh_digest = models.CharField(max_length=64, blank=True, default="")

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[AccountQuerySet] = AccountQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="account_status_is_known",
                condition=Q(status__in=AccountStatus.values),
            ),
            models.CheckConstraint(
                name="account_kind_is_known",
                condition=Q(kind__in=AccountKind.values),
            ),
            models.CheckConstraint(
                name="account_deadline_means_rate_limited",
                condition=Q(
                    status=AccountStatus.RATE_LIMITED, rate_limited_until__isnull=False
                )
                | (
                    ~Q(status=AccountStatus.RATE_LIMITED)
                    & Q(rate_limited_until__isnull=True)
                ),
            ),
            models.CheckConstraint(
                name="account_credential_fits_kind",
                condition=Q(kind=AccountKind.API_KEY, api_key__isnull=False)
                | Q(kind=AccountKind.OAUTH, access_token__isnull=False),
            ),
            models.UniqueConstraint(
                name="account_holder_once_in_organization",
                fields=["organization_uuid", "holder"],
                condition=~Q(holder=""),
            ),
            models.UniqueConstraint(
                name="account_api_key_once",
                fields=["holder"],
                condition=Q(kind=AccountKind.API_KEY) & ~Q(holder=""),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def credential(self) -> Secret:
        """What the account shows the upstream: its API key, or its access token."""
        held = self.api_key if self.kind == AccountKind.API_KEY else self.access_token
        if held is None:
            raise ValueError("the constraint on kinds and credentials was broken")
        return held


class AccountEvent(models.Model):
    """One change of an account's status: who or what moved it, from, to, and why."""

    account = models.ForeignKey(
        Account, null=True, on_delete=models.SET_NULL, related_name="events"
    )
    account_name = models.CharField(max_length=100)
    at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=150)
    from_status = models.CharField(max_length=12, blank=True)
    to_status = models.CharField(max_length=12, choices=AccountStatus.choices)
    reason = models.CharField(max_length=300)

    class Meta:
        ordering: ClassVar = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"{self.account_name}: {self.from_status or 'new'} → {self.to_status}"

    @property
    def from_label(self) -> str:
        return AccountStatus(self.from_status).label if self.from_status else "new"


class PendingAuthorization(models.Model):
    """A sign-in at the provider that was begun here and has not come back yet."""

    state_digest = models.CharField(max_length=64, unique=True)
    # Who began it: a login session or an admin key. Only they may end it.
    owner = models.CharField(max_length=100)
    verifier = EncryptedField()
    redirect_uri = models.CharField(max_length=500)
    account_name = models.CharField(max_length=100)
    # Set when an account that is there already signs in again.
    account = models.ForeignKey(Account, null=True, on_delete=models.CASCADE)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"sign-in of {self.account_name}"


class OwnedObject(models.Model):
    """Something the upstream keeps for one account, which no other account can reach.

    Written by `ownership`. It says where an object is, not that it is still there.
    """

    object_id = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=10, choices=ObjectKind.choices)
    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="owned_objects"
    )
    created_at = models.DateTimeField()
    # From then on nothing is lost by forgetting it; null: as long as the account.
    expires_at = models.DateTimeField(null=True, db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                name="owned_object_kind_is_known",
                condition=Q(kind__in=ObjectKind.values),
            ),
        ]

    def __str__(self) -> str:
        return self.object_id


class QuotaWindow(models.Model):
    """One of an account's limits, as answers last showed it.

    Written by `quota_sightings`. It decides nothing: it is there to be shown, and
    `quota_display` says what of it still counts.
    """

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="quota")
    name = models.CharField(max_length=40)
    # Which models share it, if models have limits of their own.
    model_group = models.CharField(max_length=200, blank=True, default="")
    utilization = models.FloatField(null=True)
    limit = models.BigIntegerField(null=True)
    remaining = models.BigIntegerField(null=True)
    resets_at = models.DateTimeField(null=True)
    status = models.CharField(max_length=30, blank=True, default="")
    seen_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                name="quota_window_once_of_an_account",
                fields=["account", "name", "model_group"],
            ),
        ]

    def __str__(self) -> str:
        return self.name
