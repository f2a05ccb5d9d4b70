"""The pages of the sign-in: plain HTML without scripts or anything from elsewhere."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from string import Template
from typing import Final
from urllib.parse import urlsplit

from claudeproxy.sandbox.oauth.people import Person
from claudeproxy.sandbox.oauth.server import SignIn

# What the form sends back to be checked again.
FIELDS: Final = (
    "client_id",
    "response_type",
    "redirect_uri",
    "scope",
    "code_challenge",
    "code_challenge_method",
    "state",
    "login_hint",
)
STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 40rem;
  padding: 0 1rem; }
ul { list-style: none; padding: 0; }
li { border-top: 1px solid; padding: 1rem 0; }
p { margin: 0.5rem 0; }
button { font: inherit; min-height: 2.75rem; padding: 0 1rem; }
code { overflow-wrap: anywhere; user-select: all; }
.label { border: 1px solid; padding: 0.5rem 1rem; }
"""
PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title - Claude sandbox</title>
<style>$style</style>
</head>
<body>
<main>
<p class="label"><strong>Sandbox.</strong> This is a stand-in for Claude: the people
are made up, and no real account is touched.</p>
<h1>$title</h1>
$content
</main>
</body>
</html>
""")
QUESTION: Final = Template("""<p>An application asks to act for one of these people.</p>
<dl>
<dt>Application</dt><dd>$client_id</dd>
<dt>Afterwards you go to</dt><dd>$redirect_uri</dd>
<dt>It may then use</dt><dd>$scope</dd>
</dl>
<form method="post" action="/oauth/authorize">
$hidden
<ul>
$people
</ul>
<p><button type="submit" name="deny" value="1">Deny</button></p>
</form>""")
PERSON: Final = Template("""<li>
<p id="person-$name">$full_name, $email<br>$organization$hint</p>
<button type="submit" name="allow" value="$name"
 aria-describedby="person-$name">Allow as $name</button>
</li>""")
CODE: Final = Template("""<p>Copy this code and paste it where you began to sign in.
It is good for ten minutes, and only once.</p>
<p><code id="code">$code</code></p>""")


def question(
    people: Iterable[Person], fields: Mapping[str, str], sign_in: SignIn
) -> str:
    """Build the page that asks who signs in."""
    hidden = "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in fields.items()
    )
    content = QUESTION.substitute(
        client_id=escape(fields["client_id"]),
        redirect_uri=escape(sign_in.redirect_uri),
        scope=escape(", ".join(sign_in.scope)),
        hidden=hidden,
        people="\n".join(_entry(person, sign_in.login_hint) for person in people),
    )
    return _page("Who signs in?", content)


def code(text: str) -> str:
    """Build the page that shows a code."""
    return _page("Your code", CODE.substitute(code=escape(text)))


def denied(reason: str) -> str:
    """Build the page for a sign-in that ended without a code."""
    return _page("Not signed in", f"<p>There is no code: {escape(reason)}.</p>")


def problem(reason: str) -> str:
    """Build the page for a sign-in that cannot be."""
    return _page("This sign-in does not work", f"<p>{escape(reason)}</p>")


def policy(form_target: str | None = None) -> str:
    """Build the content security policy of a page.

    Browsers also hold the redirect after a form to it, so the target is named.
    """
    digest = hashlib.sha256(STYLE.encode()).digest()
    style = base64.b64encode(digest).decode()
    actions = "'none'" if form_target is None else f"'self' {_source(form_target)}"
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; form-action {actions}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


def _source(uri: str) -> str:
    parts = urlsplit(uri)
    # There is no way to name an IPv6 address in a policy.
    is_ipv6 = "[" in parts.netloc
    return f"{parts.scheme}:" if is_ipv6 else f"{parts.scheme}://{parts.netloc}"


def _entry(person: Person, login_hint: str) -> str:
    is_meant = login_hint in (person.name, person.email)
    return PERSON.substitute(
        name=escape(person.name),
        full_name=escape(person.full_name),
        email=escape(person.email),
        organization=escape(person.organization_name),
        hint="<br>Suggested by the application" if is_meant else "",
    )


def _page(title: str, content: str) -> str:
    return PAGE.substitute(title=escape(title), style=STYLE, content=content)
