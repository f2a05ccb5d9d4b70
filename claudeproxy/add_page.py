"""An admin page with a form of its own instead of the model's."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin import helpers
from django.http import HttpRequest, HttpResponse


def render(
    model_admin: "admin.ModelAdmin[Any]",
    request: HttpRequest,
    form: forms.Form,
    *,
    title: str,
    form_url: str,
    extra_context: dict[str, Any] | None,
) -> HttpResponse:
    """Show *form* as the admin shows a form that adds a row, with one button."""
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "adminform": helpers.AdminForm(
            form,  # type: ignore[arg-type]  # it lays out any form
            [(None, {"fields": list(form.fields)})],
            {},
            model_admin=model_admin,
        ),
        "errors": form.errors,
        "media": model_admin.media,
        "inline_admin_formsets": [],
        "show_save_and_add_another": False,
        "show_save_and_continue": False,
        **(extra_context or {}),
    }
    return model_admin.render_change_form(request, context, add=True, form_url=form_url)
