"""Forms of the client keys: they read what was typed and pass it to the verbs."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.utils import timezone

from clients import issuing
from clients.errors import ClientKeyError
from clients.issuing import IssuedKey
from clients.models import MOST_SESSIONS, ClientKey, ClientKeyRole

if TYPE_CHECKING:
    from datetime import datetime

    _ClientKeyForm = forms.ModelForm[ClientKey]
else:
    _ClientKeyForm = forms.ModelForm


class AddClientKeyForm(forms.Form):
    name = forms.CharField(
        max_length=100,
        help_text="Whose key it is: a person, a machine, a team.",
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )
    role = forms.ChoiceField(
        choices=ClientKeyRole.choices,
        initial=ClientKeyRole.USER,
        help_text="A user key calls Claude; an admin key also opens the REST API.",
    )
    expires_at = forms.DateTimeField(
        required=False,
        label="Ends",
        widget=forms.DateTimeInput(
            attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"
        ),
    )

    session_limit = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=MOST_SESSIONS,
        help_text="How many sessions this key may have at a time, apart from all "
        "others. Leave it empty for a key that shares the gateway's limit with them.",
        widget=forms.NumberInput(attrs={"class": "vIntegerField"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expires_at"].help_text = (
            f"In {timezone.get_current_timezone()}. "
            "Leave it empty for a key that does not end by itself."
        )

    def clean_name(self) -> str:
        try:
            return issuing.clean_name(self.cleaned_data["name"])
        except ClientKeyError as error:
            raise forms.ValidationError(_message_of(error)) from None

    def clean_expires_at(self) -> "datetime | None":
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("This time has passed; choose a later one.")
        return expires_at

    def save(self) -> IssuedKey | None:
        """Issue the key; None, with an error on the form, if the name is taken."""
        try:
            return issuing.issue(
                self.cleaned_data["name"],
                ClientKeyRole(self.cleaned_data["role"]),
                expires_at=self.cleaned_data["expires_at"],
                session_limit=self.cleaned_data["session_limit"],
            )
        except ClientKeyError as error:
            self.add_error("name", _message_of(error))
            return None


class ChangeClientKeyForm(_ClientKeyForm):
    class Meta:
        model = ClientKey
        fields: ClassVar = ["name", "session_limit"]

    def clean_name(self) -> str:
        try:
            return issuing.clean_name(self.cleaned_data["name"])
        except ClientKeyError as error:
            raise forms.ValidationError(_message_of(error)) from None


def _message_of(error: ClientKeyError) -> str:
    """The sentence without the name of the field, which the form shows itself."""
    sentence = str(error).partition(": ")[2]
    return sentence[:1].upper() + sentence[1:]
