"""What the serializers of the REST API are made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """The body of a request; a field that it does not know is an error, not ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = ", ".join(self.fields)
            unknown = [str(name) for name in data if name not in self.fields]
            if unknown:
                raise serializers.ValidationError(
                    {
                        name: [f"This cannot be set here. Known here: {known}."]
                        for name in unknown
                    }
                )
        return super().to_internal_value(data)


class OneOfField(serializers.ChoiceField):
    """One of several words; the error for any other names them."""

    def __init__(self, choices: Sequence[Any], **options: Any) -> None:
        super().__init__(choices=choices, **options)
        words = ", ".join(str(choice) for choice in self.choices)
        self.error_messages["invalid_choice"] = f"This must be one of: {words}."


class KnownTextField(serializers.CharField):
    """A text that is empty in the database, and null in an answer, if not known."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, allow_null=True, **options)

    def to_representation(self, value: Any) -> Any:
        return super().to_representation(value) or None
