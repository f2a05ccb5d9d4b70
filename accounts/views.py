"""Connect an account by signing in at the provider, and the way back from there.

The pages belong to the admin. Only the address to which the provider sends people back
lies outside it, because it is registered with the provider and has to stay the same.
"""

import secrets
from typing import Any
from urllib.parse import urlsplit

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET

from accounts import oauth, signin, upkeep
from accounts.errors import (
    AccountError,
    NoTokenReplyError,
    OAuthNotConfiguredError,
    TokenRefusedError,
)
from accounts.forms import ConnectAccountForm, PasteCodeForm, message_of
from accounts.models import Account
from accounts.signin import Begun
from accounts.status import AccountKind, AccountStatus
from claudeproxy.conf import conf
from claudeproxy.crypto import Secret
from claudeproxy.errors import ClaudeProxyError

_NONCE = "sign_in_nonce"
_SAID_LENGTH = 200
_NO_CODE = Secret("")


def connect(request: HttpRequest) -> HttpResponse:
    """Ask what the new account is to be called, and begin its sign-in."""
    _require_permission(request, "add")
    title = "Connect account"
    try:
        oauth.require_configured()
    except OAuthNotConfiguredError as error:
        return _page(request, "connect.html", title=title, missing=error.missing)
    form = ConnectAccountForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        begun = form.begin(
            owner=_owner(request),
            redirect_uri=_redirect_uri(request),
            now=timezone.now(),
        )
        if begun is not None:
            return _begun(request, begun, name=form.cleaned_data["name"])
    return _page(request, "connect.html", title=title, form=form)


def sign_in_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Begin a sign-in that gives an account new tokens."""
    _require_permission(request, "change")
    account = get_object_or_404(Account, pk=pk, kind=AccountKind.OAUTH)
    try:
        begun = signin.begin(
            owner=_owner(request),
            redirect_uri=_redirect_uri(request),
            account=account,
            now=timezone.now(),
        )
    except OAuthNotConfiguredError as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(_page_of(account))
    return _begun(request, begun, name=account.name)


@sensitive_post_parameters("pasted")
def enter_code(request: HttpRequest) -> HttpResponse:
    """Take the code that the provider showed instead of sending the person back."""
    if not any(_may(request, action) for action in ("add", "change")):
        raise PermissionDenied
    form = PasteCodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        code, state = form.cleaned_data["pasted"]
        return _come_back(request, state=state, code=code)
    return _page(request, "enter_code.html", title="Enter the code", form=form)


@require_GET
@never_cache
def callback(request: HttpRequest) -> HttpResponse:
    """Where the provider sends people back, with a code or with an error.

    Every answer but a refusal is a redirect, so that code and state stay in no page's
    address, and no page passes them on as its referrer.
    """
    if not admin.site.has_permission(request):
        # Not with this address as the next one: a login page's address is kept.
        messages.warning(
            request,
            "A sign-in belongs to the login it was begun in: log in, then begin again.",
        )
        return redirect_to_login(reverse("admin:index"), reverse("admin:login"))
    state = request.GET.get("state", "")
    if error := request.GET.get("error", ""):
        said = [error, request.GET.get("error_description", "")]
        return _come_back(request, state=state, denied=_on_one_line(said))
    return _come_back(request, state=state, code=Secret(request.GET.get("code", "")))


def models_in_words(account: Account) -> str:
    """Read which models the account has, and say how many."""
    if not upkeep.look_at_capabilities(account):
        return "Its models are not known yet; the daily job reads them again."
    account.refresh_from_db(fields=["capabilities"])
    return f"Its models were read: {len(account.capabilities or ())}."


def _begun(request: HttpRequest, begun: Begun, *, name: str) -> HttpResponse:
    # A page with a link, no redirect: browsers hold all redirects that follow a form
    # to the policy's form-action, those among the provider's own pages too. A link is
    # free, so the policy stays as strict as on any other page.
    return _page(
        request,
        "begun.html",
        title="Sign in at the provider",
        name=name,
        url=begun.url,
        host=urlsplit(begun.url).netloc,
        comes_back=_redirect_uri(request) == _own_callback(request),
        minutes=signin.LIFETIME.total_seconds() // 60,
        form=PasteCodeForm(),
    )


def _come_back(
    request: HttpRequest, *, state: str, code: Secret = _NO_CODE, denied: str = ""
) -> HttpResponse:
    """Finish a sign-in, or give it up if it was denied; then on to a clean address."""
    owner = _owner(request)
    pending = signin.find(owner=owner, state=state)
    account = pending.account if pending else None
    if pending is not None:
        _require_permission(request, "change" if account else "add")
    try:
        if denied:
            signin.abandon(owner=owner, state=state, now=timezone.now())
            messages.warning(
                request, f"Nothing was stored: the provider says {denied!r}."
            )
            return _back_to_begin(request, account)
        connected = signin.finish(
            owner=owner,
            state=state,
            code=code,
            actor=request.user.get_username(),
            now=timezone.now(),
        )
    except ClaudeProxyError as error:
        messages.error(request, _explain(error))
        return _back_to_begin(request, account)
    return _welcome(request, connected, is_new=account is None)


def _welcome(request: HttpRequest, account: Account, *, is_new: bool) -> HttpResponse:
    pages = admin.site.get_model_admin(Account)
    if is_new:
        pages.log_addition(request, account, [{"added": {}}])
    else:
        pages.log_change(request, account, "Signed in again.")
    done = "is connected" if is_new else "has new tokens"
    text = f"Account {account.name} {done}. {models_in_words(account)}"
    if account.status == AccountStatus.INACTIVE:
        text += " It stays inactive until somebody activates it."
    messages.success(request, text)
    return HttpResponseRedirect(
        _page_of(account) if _may(request, "view") else reverse("admin:index")
    )


def _explain(error: ClaudeProxyError) -> str:
    match error:
        case TokenRefusedError():
            return f"The provider refused the code ({error}). Begin the sign-in again."
        case NoTokenReplyError():
            return f"Nothing was stored: {error}. Begin the sign-in again in a while."
        case AccountError():
            return message_of(error)
        case _:
            return str(error)


def _back_to_begin(request: HttpRequest, account: Account | None) -> HttpResponse:
    """Lead to where the sign-in can be begun again."""
    if account is not None:
        return HttpResponseRedirect(_page_of(account))
    name = "accounts_account_connect" if _may(request, "add") else "index"
    return HttpResponseRedirect(reverse(f"admin:{name}"))


def _owner(request: HttpRequest) -> str:
    """Name this login session, without its key: whoever reads the table gets no login.

    Django empties the session when somebody logs out or another person logs in.
    """
    nonce = request.session.get(_NONCE)
    if nonce is None:
        nonce = request.session[_NONCE] = secrets.token_urlsafe(24)
    return f"session:{nonce}"


def _own_callback(request: HttpRequest) -> str:
    return request.build_absolute_uri(reverse("oauth-callback"))


def _redirect_uri(request: HttpRequest) -> str:
    return conf.oauth_redirect_uri or _own_callback(request)


def _page_of(account: Account) -> str:
    return reverse("admin:accounts_account_change", args=[account.pk])


def _may(request: HttpRequest, action: str) -> bool:
    pages = admin.site.get_model_admin(Account)
    return bool(getattr(pages, f"has_{action}_permission")(request))


def _require_permission(request: HttpRequest, action: str) -> None:
    if not _may(request, action):
        raise PermissionDenied


def _on_one_line(parts: list[str]) -> str:
    text = ": ".join(part for part in parts if part)
    return "".join(c if c.isprintable() else " " for c in text)[:_SAID_LENGTH]


def _page(
    request: HttpRequest, template: str, *, title: str, form: Any = None, **context: Any
) -> HttpResponse:
    if form is not None:
        context["form"] = form
        context["adminform"] = helpers.AdminForm(
            form, [(None, {"fields": list(form.fields)})], {}
        )
    return TemplateResponse(
        request,
        f"accounts/{template}",
        {
            **admin.site.each_context(request),
            "title": title,
            "opts": Account._meta,
            **context,
        },
    )
