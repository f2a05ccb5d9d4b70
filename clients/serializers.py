"""What the endpoints of the client keys take and give."""

from datetime import datetime
from typing import Any, Literal, TypeAlias

from django.utils import timezone
from rest_framework import serializers

from claudeproxy.serializers import OneOfField, StrictSerializer
from clients.models import MOST_SESSIONS, ClientKey, ClientKeyRole

State: TypeAlias = Literal["valid", "expired", "revoked"]

# --- what comes in --------------------------------------------------------------------


class SessionLimitField(serializers.IntegerField):
    """How many sessions a key may have, or null."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            min_value=1,
            max_value=MOST_SESSIONS,
            allow_null=True,
            help_text="How many sessions the key may have at a time, apart from all "
            "others; null: it shares the gateway's limit with them.",
            **options,
        )


class IssueKeySerializer(StrictSerializer):
    name = serializers.CharField(help_text="Whose key it is.")
    role = OneOfField(
        ClientKeyRole.values,
        default=ClientKeyRole.USER,
        help_text="A user key calls Claude; an admin key also opens this API.",
    )
    expires_at = serializers.DateTimeField(
        required=False,
        default=None,
        allow_null=True,
        help_text="When it ends by itself; null or left out: never.",
    )

    session_limit = SessionLimitField(required=False, default=None)

    def validate_expires_at(self, expires_at: datetime | None) -> datetime | None:
        if expires_at is not None and expires_at <= timezone.now():
            raise serializers.ValidationError(
                "This time has passed; choose a later one."
            )
        return expires_at


class ChangeKeySerializer(StrictSerializer):
    name = serializers.CharField(required=False)
    session_limit = SessionLimitField(required=False)


# --- what goes out --------------------------------------------------------------------


class ClientKeySerializer(serializers.Serializer[ClientKey]):
    id = serializers.IntegerField(read_only=True)
    name = serializers.CharField(read_only=True)
    role = serializers.ChoiceField(ClientKeyRole.choices, read_only=True)
    state = serializers.SerializerMethodField()
    expires_at = serializers.DateTimeField(read_only=True, allow_null=True)
    revoked_at = serializers.DateTimeField(read_only=True, allow_null=True)
    session_limit = serializers.IntegerField(read_only=True, allow_null=True)
    created_at = serializers.DateTimeField(read_only=True)

    def get_state(self, key: ClientKey) -> State:
        if key.revoked_at is not None:
            return "revoked"
        return "valid" if key.is_valid(self.context["now"]) else "expired"


class IssuedKeySerializer(ClientKeySerializer):
    key = serializers.CharField(
        read_only=True, help_text="Shown this once; only its digest is kept."
    )
