"""Client sessions in the admin: who is here, and who has to go.

The rows come from the store, which may be Redis; so the list is a page of its own, that
looks as the others do, and there is no page for a single session.
"""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone

from claudeproxy import durations
from sessions_limit import ending, listing, references, session_list
from sessions_limit.backends.base import StoreAwayError
from sessions_limit.ending import Report
from sessions_limit.forms import EndSessionsForm
from sessions_limit.keys import SessionId
from sessions_limit.models import ClientSession

_AWAY = (
    "The store of sessions does not answer ({}). Running requests go on; "
    "the gateway's log says more."
)


@admin.register(ClientSession)
class ClientSessionAdmin(admin.ModelAdmin[ClientSession]):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: ClientSession | None = None
    ) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        pages = (
            ("", self.changelist_view, "changelist"),
            ("add/", self.add_view, "add"),
        )
        return [
            path(
                route,
                self.admin_site.admin_view(view),
                name=f"sessions_limit_clientsession_{name}",
            )
            for route, view, name in pages
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act(request)
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        sessions, trouble = None, ""
        try:
            sessions = session_list.load(request.GET.dict())
        except StoreAwayError as error:
            trouble = _AWAY.format(error)
        context = {
            "sessions": sessions,
            "trouble": trouble,
            "may_end": self.has_delete_permission(request),
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            **(extra_context or {}),
        }
        return self._page(request, "session_list", "Client sessions", context)

    # --- actions

    def _act(self, request: HttpRequest) -> HttpResponse:
        if not self.has_delete_permission(request):
            raise PermissionDenied
        action, chosen = _read_action(request)
        try:
            if not chosen:
                self.message_user(
                    request,
                    "Choose sessions first; nothing was done.",
                    messages.WARNING,
                )
            elif action == "end":
                return self._end(request, chosen)
            elif action == "unblock":
                self._unblock(request, chosen)
            else:
                self.message_user(
                    request, "Choose an action; nothing was done.", messages.WARNING
                )
        except StoreAwayError as error:
            self.message_user(request, _AWAY.format(error), messages.ERROR)
        return _back(request)

    def _end(self, request: HttpRequest, chosen: list[SessionId]) -> HttpResponse:
        is_confirmed = "confirmed" in request.POST
        form = EndSessionsForm(request.POST if is_confirmed else None)
        if is_confirmed and form.is_valid():
            block = form.chosen_block
            report = ending.end(chosen, block=block, actor=_actor(request))
            text = _in_words(report)
            if block:
                text += f"; {report.blocked} blocked for {durations.describe(block)}"
            level = messages.WARNING if report.late else messages.SUCCESS
            self.message_user(request, f"{text}.", level)
            return _back(request)
        here = [s for s in listing.load() if s.live.id in set(chosen)]
        context = {
            "chosen": [references.write(session) for session in chosen],
            "here": here,
            "gone": len(chosen) - len(here),
            "running": sum(session.live.in_flight for session in here),
            "form": form,
            "adminform": helpers.AdminForm(
                form,  # type: ignore[arg-type]  # it lays out any form
                [(None, {"fields": list(form.fields)})],
                {},
                model_admin=self,
            ),
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
        }
        return self._page(request, "end_confirmation", "End sessions", context)

    def _unblock(self, request: HttpRequest, chosen: list[SessionId]) -> None:
        unblocked = ending.unblock(chosen, actor=_actor(request))
        others = len(chosen) - unblocked
        text = f"{unblocked} unblocked"
        if others:
            text += f", {others} {_were(others)} not blocked"
        level = messages.WARNING if others else messages.SUCCESS
        self.message_user(request, f"{text}.", level)

    def _page(
        self, request: HttpRequest, name: str, title: str, context: dict[str, Any]
    ) -> HttpResponse:
        return TemplateResponse(
            request,
            f"sessions_limit/{name}.html",
            {
                **self.admin_site.each_context(request),
                "title": title,
                "opts": self.opts,
                "now": timezone.now(),
                "media": self.media,
                **context,
            },
        )


def _read_action(request: HttpRequest) -> tuple[str, list[SessionId]]:
    """What to do and to which sessions: a row's own button goes before what is ticked.

    A name that no session can have is left out.
    """
    action = request.POST.get("action", "")
    texts = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
    for button in ("end", "unblock"):
        if button in request.POST:
            action, texts = button, [request.POST[button]]
    found = (references.read(text) for text in dict.fromkeys(texts))
    return action, [session for session in found if session is not None]


def _in_words(report: Report) -> str:
    text = f"{report.ended} ended"
    return f"{text}, {report.late} had already ended" if report.late else text


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _back(request: HttpRequest) -> HttpResponse:
    """To the list as it was looked at: its filters are in the address."""
    return HttpResponseRedirect(request.get_full_path())


def _actor(request: HttpRequest) -> str:
    return request.user.get_username()
