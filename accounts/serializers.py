"""What the accounts' endpoints take and give. No field of an answer is a secret."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts import quota_display
from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus
from accounts.tokens import Outcome
from claudeproxy.serializers import KnownTextField, OneOfField, StrictSerializer

_ORDERINGS = [
    f"{sign}{name}"
    for name in ("name", "status", "created_at", "last_used_at", "status_changed_at")
    for sign in ("", "-")
]

# --- what comes in --------------------------------------------------------------------


class AccountFilterSerializer(serializers.Serializer[Any]):
    status = OneOfField(AccountStatus.values, required=False)
    kind = OneOfField(AccountKind.values, required=False)
    search = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        help_text="Part of the name, of the holder's or of the organization's.",
    )
    ordering = OneOfField(
        _ORDERINGS, required=False, default="name", help_text="`-` reverses the order."
    )


class AddAccountSerializer(StrictSerializer):
    name = serializers.CharField()
    api_key = serializers.CharField(
        write_only=True, help_text="Stored encrypted, and never shown again."
    )
    check = serializers.BooleanField(
        default=True,
        help_text="Ask the provider whether the key works, and for its models.",
    )


class RenameAccountSerializer(StrictSerializer):
    name = serializers.CharField()


class MoveSerializer(StrictSerializer):
    reason = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=300,
        help_text="For the account's history.",
    )


class AuthorizeSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(required=False, help_text="For a new account.")
    account = serializers.PrimaryKeyRelatedField(
        queryset=Account.objects.all(),
        required=False,
        help_text="Id of an account that signs in again.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError(
                "Give either name, for a new account, "
                "or account, for one that signs in again."
            )
        return attrs


class ExchangeSerializer(StrictSerializer):
    code = serializers.CharField(
        write_only=True, help_text="As the provider gave it; CODE#STATE is understood."
    )
    state = serializers.CharField(
        required=False, default="", help_text="Not needed if the code contains it."
    )


# --- what goes out --------------------------------------------------------------------


class OrganizationSerializer(serializers.Serializer[Account]):
    uuid = KnownTextField(source="organization_uuid")
    name = KnownTextField(source="organization_name")


class QuotaSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(
        read_only=True,
        help_text="`5h`, `7d`, `requests`, `input-tokens`, as the provider calls it.",
    )
    model_group = KnownTextField(
        help_text="Which models share it; null if it is of all of them."
    )
    utilization = serializers.FloatField(
        read_only=True,
        allow_null=True,
        help_text="The part that is used; may pass 1. Null if not known.",
    )
    limit = serializers.IntegerField(read_only=True, allow_null=True)
    remaining = serializers.IntegerField(read_only=True, allow_null=True)
    resets_at = serializers.DateTimeField(read_only=True, allow_null=True)
    status = KnownTextField(
        help_text="`allowed`, `allowed_warning`, `rejected`, or a later word."
    )
    is_over = serializers.BooleanField(
        read_only=True,
        help_text="It was reset since, or was not seen for a day, if its reset is not "
        "known; what is used now has not been seen.",
    )
    seen_at = serializers.DateTimeField(read_only=True)


class AccountSerializer(serializers.Serializer[Account]):
    id = serializers.IntegerField(read_only=True)
    name = serializers.CharField(read_only=True)
    kind = serializers.ChoiceField(AccountKind.choices, read_only=True)
    status = serializers.ChoiceField(AccountStatus.choices, read_only=True)
    status_reason = serializers.CharField(read_only=True)
    status_changed_at = serializers.DateTimeField(read_only=True)
    rate_limited_until = serializers.DateTimeField(read_only=True, allow_null=True)
    expires_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When the access token ends."
    )
    organization = OrganizationSerializer(source="*", read_only=True)
    holder_name = KnownTextField()
    models = serializers.SerializerMethodField(
        help_text="Ids of the models it may use; null if not known."
    )
    capabilities_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When the models were read."
    )
    quota = serializers.SerializerMethodField(
        help_text="Its limits as answers last showed them; empty if none did."
    )
    last_used_at = serializers.DateTimeField(read_only=True, allow_null=True)
    last_refresh_at = serializers.DateTimeField(read_only=True, allow_null=True)
    last_refresh_error = KnownTextField()
    created_at = serializers.DateTimeField(read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)

    def get_models(self, account: Account) -> list[str] | None:
        if account.capabilities is None:
            return None
        return [model["id"] for model in account.capabilities]

    @extend_schema_field(QuotaSerializer(many=True))
    def get_quota(self, account: Account) -> Any:
        seen = quota_display.quotas(account.quota.all(), timezone.now())
        return QuotaSerializer(seen, many=True).data


class AccountDetailSerializer(AccountSerializer):
    event_count = serializers.IntegerField(
        read_only=True, help_text="How long its history is, which outlives it."
    )


class EventSerializer(serializers.Serializer[AccountEvent]):
    id = serializers.IntegerField(read_only=True)
    account_name = serializers.CharField(read_only=True, help_text="As it was then.")
    at = serializers.DateTimeField(read_only=True)
    actor = serializers.CharField(read_only=True, help_text="Who or what moved it.")
    from_status = KnownTextField(help_text="Null for the first.")
    to_status = serializers.ChoiceField(AccountStatus.choices, read_only=True)
    reason = serializers.CharField(read_only=True)


class FindingSerializer(serializers.Serializer[Any]):
    works = serializers.BooleanField(read_only=True)
    message = serializers.CharField(read_only=True, help_text="What the provider said.")


class RefreshedSerializer(serializers.Serializer[Any]):
    outcome = serializers.ChoiceField(
        [outcome.name.lower() for outcome in Outcome], read_only=True
    )
    message = serializers.CharField(read_only=True, help_text="Why; often empty.")
    account = AccountSerializer(read_only=True)


class CapabilitiesReadSerializer(serializers.Serializer[Any]):
    was_read = serializers.BooleanField(
        read_only=True, help_text="If not, what was known before stays."
    )
    account = AccountSerializer(read_only=True)


class BegunSerializer(serializers.Serializer[Any]):
    authorization_url = serializers.URLField(
        read_only=True, help_text="To be opened in a browser."
    )
    state = serializers.CharField(read_only=True)
    expires_in = serializers.IntegerField(read_only=True, help_text="In seconds.")
    redirect_uri = serializers.CharField(
        read_only=True, help_text="Where the provider sends the browser afterwards."
    )
