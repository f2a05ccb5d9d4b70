"""Forms of the accounts: they read what was typed and pass it to the verbs."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms

from accounts import probe, registration
from accounts.errors import AccountError
from accounts.models import Account
from accounts.status import AccountKind
from claudeproxy.crypto import Secret

if TYPE_CHECKING:
    _AccountForm = forms.ModelForm[Account]
else:
    _AccountForm = forms.ModelForm


class AddAccountForm(forms.Form):
    name = forms.CharField(
        max_length=100,
        help_text="What people call this account; it can be changed later.",
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )
    api_key = forms.CharField(
        label="API key",
        help_text="It is stored encrypted and never shown again.",
        widget=forms.PasswordInput(
            attrs={"class": "vTextField", "autocomplete": "off", "spellcheck": "false"}
        ),
    )
    check_first = forms.BooleanField(
        label="Check it with the provider first",
        help_text="Asks for the list of models, which costs nothing.",
        initial=True,
        required=False,
    )

    def clean_name(self) -> str:
        try:
            name = registration.clean_name(self.cleaned_data["name"])
            registration.require_free_name(name)
        except AccountError as error:
            raise forms.ValidationError(_message_of(error)) from None
        return name

    def clean_api_key(self) -> Secret:
        try:
            return registration.clean_api_key(self.cleaned_data["api_key"])
        except AccountError as error:
            raise forms.ValidationError(_message_of(error)) from None

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data["check_first"] and not self.errors:
            self._check_credential(self.cleaned_data["api_key"])
        return self.cleaned_data

    def _check_credential(self, api_key: Secret) -> None:
        finding = probe.check_credential(AccountKind.API_KEY, api_key)
        if finding.works:
            return
        if finding.refused:
            message = f"The provider refused this key: {finding.message}."
        else:
            message = (
                f"The key could not be checked: {finding.message} To add it "
                "unchecked, untick the box below and paste the key once more."
            )
        self.add_error("api_key", message)

    def save(self, *, actor: str, now: datetime) -> Account | None:
        """Store the account; None, with an error on the form, if the name is gone."""
        try:
            return registration.add_api_key(
                self.cleaned_data["name"],
                self.cleaned_data["api_key"],
                actor=actor,
                now=now,
            )
        except AccountError as error:
            self.add_error("name", _message_of(error))
            return None


class RenameAccountForm(_AccountForm):
    class Meta:
        model = Account
        fields: ClassVar = ["name"]

    def clean_name(self) -> str:
        try:
            return registration.clean_name(self.cleaned_data["name"])
        except AccountError as error:
            raise forms.ValidationError(_message_of(error)) from None


def _message_of(error: AccountError) -> str:
    """The sentence without the name of the field, which the form shows itself."""
    sentence = str(error).partition(": ")[2]
    return sentence[:1].upper() + sentence[1:]
