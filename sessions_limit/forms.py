"""Forms of the client sessions: they read what was typed and pass it to the verbs."""

from datetime import timedelta
from typing import Any

from django import forms

from sessions_limit import ending

_OWN = "own"
_CHOICES = [
    ("", "No: they may come back at once"),
    ("5m", "For 5 minutes"),
    ("1h", "For 1 hour"),
    ("1d", "For 1 day"),
    (_OWN, "For another time"),
]


class EndSessionsForm(forms.Form):
    block = forms.ChoiceField(
        choices=_CHOICES,
        required=False,
        label="Block",
        help_text="A blocked client is told so, and for how long.",
    )
    span = forms.CharField(
        required=False,
        max_length=40,
        label="Another time",
        help_text="A number with its unit, such as 30m, 2h30m or 7d.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "size": 10}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        chosen, span = cleaned.get("block"), cleaned.get("span")
        if chosen == _OWN and not span:
            if "span" not in self.errors:
                self.add_error("span", "Say for how long.")
        elif chosen != _OWN and span:
            self.add_error("span", "Choose “For another time”, or leave this empty.")
        elif span:
            try:
                ending.read_block(span)
            except ValueError as error:
                self.add_error("span", f"{str(error).rstrip('.')}.")
        return cleaned

    @property
    def chosen_block(self) -> timedelta | None:
        """For how long to block; None: not at all."""
        text = self.cleaned_data["span"] or self.cleaned_data["block"]
        return ending.read_block(text) if text else None
