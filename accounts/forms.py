"""Forms of the accounts: they read what was typed and pass it to the verbs."""

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms

from accounts import oauth, probe, registration, signin
from accounts.errors import AccountError, IdentityError
from accounts.models import Account
from accounts.signin import Begun
from accounts.status import AccountKind
from claudeproxy.crypto import Secret

if TYPE_CHECKING:
    _AccountForm = forms.ModelForm[Account]
else:
    _AccountForm = forms.ModelForm


_FIELD = re.compile(r"^[a-z_]+: ")


class NewAccountForm(forms.Form):
    """What every new account needs, however it gets its credential."""

    name = forms.CharField(
        max_length=100,
        help_text="What people call this account; it can be changed later.",
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )

    def clean_name(self) -> str:
        try:
            name = registration.clean_name(self.cleaned_data["name"])
            registration.require_free_name(name)
        except AccountError as error:
            raise forms.ValidationError(message_of(error)) from None
        return name


class AddAccountForm(NewAccountForm):
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

    # Where the key belongs, if the provider was asked.
    _organization_uuid = ""

    def clean_api_key(self) -> Secret:
        try:
            return registration.clean_api_key(self.cleaned_data["api_key"])
        except AccountError as error:
            raise forms.ValidationError(message_of(error)) from None

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data["check_first"] and not self.errors:
            self._check_credential(self.cleaned_data["api_key"])
        return self.cleaned_data

    def _check_credential(self, api_key: Secret) -> None:
        finding = probe.check_credential(AccountKind.API_KEY, api_key)
        if finding.works:
            self._organization_uuid = finding.organization_uuid
            return
        said = finding.message.rstrip(".")
        if finding.refused:
            message = f"This key was refused: {said}."
        else:
            message = (
                f"The key could not be checked: {said}. To add it unchecked, "
                "untick the box below and paste the key once more."
            )
        self.add_error("api_key", message)

    def save(self, *, actor: str, now: datetime) -> Account | None:
        """Store the account; None, with an error on the form, if it cannot be had."""
        try:
            return registration.add_api_key(
                self.cleaned_data["name"],
                self.cleaned_data["api_key"],
                actor=actor,
                now=now,
                organization_uuid=self._organization_uuid,
            )
        except IdentityError as error:
            self.add_error("api_key", message_of(error))
        except AccountError as error:
            self.add_error("name", message_of(error))
        return None


class ConnectAccountForm(NewAccountForm):
    def begin(self, *, owner: str, redirect_uri: str, now: datetime) -> Begun | None:
        """Begin the sign-in; None, with an error on the form, if the name is gone."""
        try:
            return signin.begin(
                owner=owner,
                redirect_uri=redirect_uri,
                name=self.cleaned_data["name"],
                now=now,
            )
        except AccountError as error:
            self.add_error("name", message_of(error))
            return None


class OneTimeInput(forms.PasswordInput):
    """A field that can be read while it is typed, and is not given back after."""

    input_type = "text"


class PasteCodeForm(forms.Form):
    pasted = forms.CharField(
        label="Code",
        max_length=4000,
        help_text="All that the provider shows, with the # and what follows it.",
        widget=OneTimeInput(
            attrs={"class": "vTextField", "autocomplete": "off", "spellcheck": "false"}
        ),
    )

    def clean_pasted(self) -> tuple[Secret, str]:
        code, state = oauth.split_pasted_code(self.cleaned_data["pasted"])
        if not code or not state:
            raise forms.ValidationError(
                "That is not all of it: the code has two parts with a # between them."
            )
        return Secret(code), state


class RenameAccountForm(_AccountForm):
    class Meta:
        model = Account
        fields: ClassVar = ["name"]

    def clean_name(self) -> str:
        try:
            return registration.clean_name(self.cleaned_data["name"])
        except AccountError as error:
            raise forms.ValidationError(message_of(error)) from None


def message_of(error: AccountError) -> str:
    """The sentence without the name of the field, which the form shows itself."""
    sentence = _FIELD.sub("", str(error))
    return sentence[:1].upper() + sentence[1:]
