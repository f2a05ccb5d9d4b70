"""What the endpoints of the client sessions take and give."""

from datetime import timedelta
from typing import Any

from rest_framework import serializers

from claudeproxy.serializers import KnownTextField, OneOfField
from sessions_limit import ending
from sessions_limit.listing import ShownSession

# --- what comes in --------------------------------------------------------------------


class SessionFilterSerializer(serializers.Serializer[Any]):
    state = OneOfField(["alive", "blocked"], required=False)
    scope = OneOfField(
        ["shared", "own"],
        required=False,
        help_text="Under the gateway's limit, or under one of the key's own.",
    )
    key_id = serializers.IntegerField(
        required=False, help_text="Id of the client key it calls with."
    )
    search = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=200,
        help_text="Words, each a part of the address, the user agent or the key's "
        "name.",
    )


class EndSessionSerializer(serializers.Serializer[Any]):
    block = serializers.CharField(
        required=False,
        default=None,
        allow_blank=True,  # so that it is told what is wrong with it
        help_text="Keep it out for so long, such as 30m, 1h or 7d.",
    )

    def validate_block(self, text: str | None) -> timedelta | None:
        try:
            return ending.read_block(text) if text is not None else None
        except ValueError as error:
            raise serializers.ValidationError(f"{str(error).rstrip('.')}.") from None


# --- what goes out --------------------------------------------------------------------


class SessionClientSerializer(serializers.Serializer[Any]):
    ip = KnownTextField(help_text="Of IPv6, the network that counts as one client.")
    user_agent = KnownTextField()
    key_id = serializers.IntegerField(read_only=True)
    key_name = serializers.CharField(read_only=True)


class SessionSerializer(serializers.Serializer[ShownSession]):
    id = serializers.CharField(source="reference", read_only=True)
    client = SessionClientSerializer(source="live.client", read_only=True)
    scope = serializers.CharField(
        source="live.id.scope",
        read_only=True,
        help_text="`global`, or `key:` and the id of a key with a limit of its own.",
    )
    limit = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="How many sessions may be alive in the scope; null: its key has no "
        "limit of its own any more.",
    )
    first_seen_at = serializers.DateTimeField(
        source="live.first_seen_at", read_only=True
    )
    last_seen_at = serializers.DateTimeField(source="live.last_seen_at", read_only=True)
    expires_at = serializers.DateTimeField(source="live.expires_at", read_only=True)
    is_alive = serializers.BooleanField(source="live.is_alive", read_only=True)
    blocked_until = serializers.DateTimeField(
        source="live.blocked_until", read_only=True, allow_null=True
    )
    requests = serializers.IntegerField(source="live.requests", read_only=True)
    in_flight = serializers.IntegerField(source="live.in_flight", read_only=True)
    accounts = serializers.ListField(
        source="live.account_names",
        child=serializers.CharField(),
        read_only=True,
        help_text="The last ones that served it, the latest first.",
    )
