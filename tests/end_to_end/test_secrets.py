"""Secrets are planted, all kinds of things happen, and nothing shows a secret.

Whoever adds a place where something is written or shown adds it to `Story.look`.
"""

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import psutil
import pytest
from cryptography.fernet import Fernet

from claudeproxy.sandbox.server import SandboxServer
from clients import keys
from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, request

pytestmark = pytest.mark.processes

TOKEN_PATH = "/v1/oauth/token"
API_KEY = "sk-ant-api03-planted-Kq7ZtW3nXv9RbM2y"
REFUSED_KEY = "sk-ant-api03-planted-Jd4VhC8gPs6TfL1w"
PASSWORD = "planted-Hx5NcQ2kRz8UeB7j"
# Nobody's, but a caller's own secret all the same.
UNKNOWN_KEY = keys.generate()
PEOPLE = ("dorothy", "katherine", "radia")

_MAKE_ADMIN = """
import os
from django.contrib.auth.models import User
from clients import issuing
User.objects.create_superuser("root", password=os.environ["PLANTED_PASSWORD"])
print(issuing.issue("robot", "admin").key.reveal())
"""
# Prints what the database holds in forms that a search of its file would miss.
_DUMP = """
from django.core.management import call_command
from django.contrib.sessions.models import Session
from django_q.models import OrmQ, Task
for task in Task.objects.all():
    print(task.func, task.args, task.kwargs, task.result)
for row in OrmQ.objects.all():
    print(row.task)
for session in Session.objects.all():
    print(session.get_decoded())
call_command("dumpdata")
"""
_QUEUE = """
from accounts.models import Account
from django_q.tasks import async_task
for name in {names}:
    async_task("accounts.tasks.refresh_token", Account.objects.get(name=name).pk)
    async_task(
        "accounts.tasks.refresh_account_capabilities", Account.objects.get(name=name).pk
    )
"""


def planted_token(kind: str, person: str) -> str:
    return f"sk-ant-{kind}-planted-{person}-Gw6YmD3sVk9AxF4p"


def traces(secret: str) -> set[str]:
    """What must not be found: a secret, and what a mask would leave of its end."""
    return {secret, secret[-12:], secret[-24:-12]}


class Browser:
    """Somebody at the admin pages, who keeps a copy of all that is seen."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=20)
        self.seen: list[str] = []

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._keep(self.client.get(path, follow_redirects=True, **options))

    def post(self, path: str, **fields: str) -> httpx.Response:
        token = self.client.cookies.get("csrftoken", "")
        data = {"csrfmiddlewaretoken": token, **fields}
        return self._keep(self.client.post(path, data=data, follow_redirects=True))

    def _keep(self, reply: httpx.Response) -> httpx.Response:
        for step in (*reply.history, reply):
            self.seen += [str(step.headers), step.text]
        return reply

    def log_in(self, name: str, password: str) -> None:
        self.get("/admin/login/")
        fields = {"username": name, "password": password, "next": "/admin/"}
        reply = self.post("/admin/login/", **fields)
        assert "Log out" in reply.text


class Story:
    """What happens to a gateway, and where it leaves traces."""

    def __init__(self, gateway: Gateway, server: SandboxServer) -> None:
        self.gateway = gateway
        self.server = server
        self.sandbox = server.sandbox
        self.browser = Browser(gateway.url)
        self.printed: list[str] = []
        self.answers: list[str] = []
        self.arguments: list[str] = []
        self.places: dict[str, str] = {}
        self.admin_key = ""
        self.client_key = gateway.key
        self.secrets = {
            "API key": API_KEY,
            "refused API key": REFUSED_KEY,
            "admin password": PASSWORD,
            "client key": gateway.key,
            "unknown client key": UNKNOWN_KEY,
        }

    # --- what happens

    def happen(self) -> None:
        self.make_an_admin()
        self.add_accounts()
        self.connect_an_account()
        self.serve()
        self.refresh()
        self.run_jobs()
        self.look_at_pages()
        self.ask_the_api()
        self.break_inside()
        self.note_new_tokens()
        self.note_arguments()
        self.printed.append(self.shell(_DUMP))
        self.look()

    def make_an_admin(self) -> None:
        self.admin_key = self.secrets["admin key"] = gateways.manage(
            self.gateway.data_dir,
            *("shell", "--verbosity", "0", "--command", _MAKE_ADMIN),
            PLANTED_PASSWORD=PASSWORD,
        ).strip()
        self.browser.log_in("root", PASSWORD)

    def add_accounts(self) -> None:
        self.sandbox.accounts.add("planted", API_KEY)
        self.printed.append(
            self.gateway.manage(
                *("add_account", "keyed", "--kind", "api_key"), stdin=API_KEY
            )
        )
        for person in ("dorothy", "katherine"):
            old = {kind: planted_token(kind, person) for kind in ("oat01", "ort01")}
            self.sandbox.oauth.issue(
                person, access_token=old["oat01"], refresh_token=old["ort01"]
            )
            self.secrets[f"old access token of {person}"] = old["oat01"]
            self.secrets[f"old refresh token of {person}"] = old["ort01"]
            tokens = {
                "access_token": old["oat01"],
                "refresh_token": old["ort01"],
                "expires_at": (datetime.now(UTC) + timedelta(seconds=40)).isoformat(),
            }
            command = ("add_account", person, "--kind", "oauth", "--from-json", "-")
            self.printed.append(
                self.gateway.manage(*command, "--no-check", stdin=json.dumps(tokens))
            )
        page = self.browser.post(
            "/admin/accounts/account/add/",
            name="not to be",
            api_key=REFUSED_KEY,
            check_first="on",
        )
        assert "refused" in page.text

    def connect_an_account(self) -> None:
        for person in ("radia", "hedy-work"):
            page = self.browser.post("/admin/accounts/account/connect/", name=person)
            (url,) = re.findall(r'href="(http[^"]+/oauth/authorize[^"]+)"', page.text)
            self.note_verifier(person)
            back = self.allow(url.replace("&amp;", "&"), person)
            self.secrets[f"code of {person}"] = back["code"]
            if person == "hedy-work":  # whose provider quotes what it was sent
                verifier = self.secrets[f"verifier of {person}"]
                text = f"bad {back['code']} or {verifier}"
                self.script(person, 400, "invalid_grant", text)
            path = urlsplit(back["redirect_uri"]).path
            asked = {"code": back["code"], "state": back["state"]}
            self.browser.get(path, params=asked)

    def allow(self, url: str, person: str) -> dict[str, str]:
        parts = urlsplit(url)
        asked = dict(parse_qsl(parts.query))
        reply = httpx.post(
            f"{parts.scheme}://{parts.netloc}{parts.path}",
            data={**asked, "allow": person},
            trust_env=False,
        )
        found = dict(parse_qsl(urlsplit(reply.headers["location"]).query))
        return {**found, "redirect_uri": asked["redirect_uri"]}

    def script(self, person: str, status: int, kind: str, text: str) -> None:
        step = {"status": status, "error_type": kind, "error_message": text}
        self.sandbox.script.add(person, {"path": TOKEN_PATH, **step})

    def serve(self) -> None:
        def call(**fields: Any) -> int:
            data = request(ask(**fields), key=self.gateway.key)
            answer = exchange(self.gateway.port, data)
            self.answers.append(f"{answer.headers} {answer.body!r}")
            return answer.status

        statuses = [call(messages=_says(n), stream=n % 2 == 0) for n in range(8)]
        assert statuses == [200] * 8
        self.sandbox.script.add("*", {"status": 529})
        self.sandbox.script.add("*", {"reset": "before_head"})
        self.sandbox.script.add("*", {"cut_before_frame": 3})
        for n in range(3):
            call(messages=_says(f"failing {n}"), stream=True)
        assert call(model="claude-nope-1") == 404
        unknown = request(ask(), key=UNKNOWN_KEY)
        assert exchange(self.gateway.port, unknown).status == 401

    def refresh(self) -> None:
        """Refresh by hand: well, in trouble, and refused by a provider that quotes."""
        for person in ("dorothy", "katherine", "radia"):
            self.press(person, "refresh")
        self.note_new_tokens()
        for person, status, kind in (
            ("dorothy", 500, "server_error"),
            ("katherine", 400, "invalid_grant"),
        ):
            quoted = self.secrets[f"new refresh token of {person}"]
            self.script(person, status, kind, f"no such token {quoted}")
            self.press(person, "refresh")
            self.press(person, "check")
        command = ("refresh_accounts", "--force", "radia")
        quoted = self.secrets["new refresh token of radia"]
        self.script("radia", 500, "server_error", f"no such token {quoted}")
        self.printed += gateway_output(self.gateway, *command)

    def run_jobs(self) -> None:
        quoted = self.secrets["new refresh token of radia"]
        self.script("radia", 503, "server_error", f"no such token {quoted}")
        models = {"path": "/v1/models", "status": 500, "error_message": quoted}
        self.sandbox.script.add("radia", models)
        self.execute(
            "UPDATE accounts_account SET expires_at = ?, refresh_retry_at = NULL"
            " WHERE name = 'radia'",
            str((datetime.now(UTC) + timedelta(minutes=30)).replace(tzinfo=None)),
        )
        self.shell(_QUEUE.format(names=PEOPLE))
        count = "SELECT count(*) FROM django_q_task WHERE func LIKE 'accounts.tasks.%'"
        failed = f"{count} AND NOT success"
        until(lambda: self.execute(failed)[0][0] >= 1, within_seconds=20)
        until(lambda: self.execute(count)[0][0] >= 6, within_seconds=20)

    def look_at_pages(self) -> None:
        self.browser.get("/admin/")
        for model in (
            *("accounts/account", "accounts/accountevent", "clients/clientkey"),
            *("django_q/schedule", "django_q/success", "django_q/failure"),
            *("django_q/ormq", "auth/user"),
        ):
            page = self.browser.get(f"/admin/{model}/")
            rows = re.findall(rf"/admin/{model}/(\w+)/change/", page.text)
            for number in sorted(set(rows)):
                self.browser.get(f"/admin/{model}/{number}/change/")
                self.browser.get(f"/admin/{model}/{number}/history/")
                self.browser.get(f"/admin/{model}/{number}/delete/")

    def ask_the_api(self) -> None:
        client = httpx.Client(
            base_url=self.gateway.url,
            headers={"x-api-key": self.admin_key},
            trust_env=False,
            timeout=20,
        )

        def call(method: str, path: str, **options: Any) -> Any:
            reply = client.request(method, path, **options)
            self.answers.append(f"{reply.headers} {reply.text}")
            return reply

        with client:
            accounts = call("GET", "/api/accounts").json()
            for account in accounts["results"]:
                call("GET", f"/api/accounts/{account['id']}")
                call("GET", f"/api/accounts/{account['id']}/events")
                call("POST", f"/api/accounts/{account['id']}/check")
            call("GET", "/api/tokens")
            call("GET", "/api/schema")
            refused = {"name": "again", "api_key": REFUSED_KEY}
            assert call("POST", "/api/accounts", json=refused).status_code == 400
            code = {"code": self.secrets["code of radia"], "state": "s"}
            assert call("POST", "/oauth/exchange", json=code).status_code == 400
        assert accounts["results"]

    def break_inside(self) -> None:
        """Make the gateway fail where nobody expects it, with secrets in hand."""
        fields = {"name": "broken", "api_key": API_KEY}
        code = {"code": self.secrets["code of radia"], "state": "s"}
        with self.without_accounts():
            add = self.browser.post("/admin/accounts/account/add/", **fields)
            back = self.browser.get("/oauth/callback", params=code)
        assert (add.status_code, back.status_code) == (500, 500)
        self.break_requests()

    def break_requests(self) -> None:
        """The same, for who does not use a browser."""
        headers = {"x-api-key": self.admin_key}
        fields = {"name": "broken", "api_key": API_KEY, "check": False}
        with self.without_accounts():
            url = f"{self.gateway.url}/api/accounts"
            reply = httpx.post(url, json=fields, headers=headers, trust_env=False)
        self.answers.append(reply.text)
        assert reply.status_code == 500
        # A status that no version of the program knows, as a bad restore might leave.
        update = "UPDATE accounts_account SET status = '{}' WHERE name = 'keyed'"
        unheard = update.format("unheard")
        self.execute("PRAGMA ignore_check_constraints = ON", then=unheard)
        answer = exchange(self.gateway.port, request(ask(), key=keys.generate()))
        self.answers.append(f"{answer.headers} {answer.body!r}")
        assert answer.status == 500
        self.execute(update.format("active"))

    @contextlib.contextmanager
    def without_accounts(self) -> Iterator[None]:
        self.execute("ALTER TABLE accounts_account RENAME TO away")
        yield
        self.execute("ALTER TABLE away RENAME TO accounts_account")

    def go_on(self, gateway: Gateway) -> None:
        """Let the worst happen once more, where the log is written for people."""
        self.gateway = gateway
        quoted = self.secrets["new refresh token of dorothy"]
        for kind in ("server_error", "invalid_grant"):
            self.script("dorothy", 400, kind, f"no such token {quoted}")
            ((account_id,),) = self.execute(
                "SELECT id FROM accounts_account WHERE name = 'dorothy'"
            )
            reply = httpx.post(
                f"{gateway.url}/api/accounts/{account_id}/refresh",
                headers={"x-api-key": self.admin_key},
                trust_env=False,
            )
            assert reply.json()["outcome"] != "refreshed"
        self.break_requests()

    # --- what it holds

    def note_verifier(self, person: str) -> None:
        (row,) = self.execute(
            "SELECT verifier FROM accounts_pendingauthorization WHERE account_name = ?",
            person,
        )
        self.secrets[f"verifier of {person}"] = self.decrypt(row[0])

    def note_new_tokens(self) -> None:
        query = "SELECT name, access_token, refresh_token FROM accounts_account"
        for name, access, refresh in self.execute(f"{query} WHERE kind = 'oauth'"):
            self.secrets[f"new access token of {name}"] = self.decrypt(access)
            self.secrets[f"new refresh token of {name}"] = self.decrypt(refresh)

    def decrypt(self, sealed: str) -> str:
        key = (self.gateway.data_dir / "encryption_key").read_text().strip()
        return Fernet(key).decrypt(sealed.encode()).decode()

    def note_arguments(self) -> None:
        main = psutil.Process(self.gateway.process.pid)
        for process in (main, *main.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                self.arguments += process.cmdline()

    # --- how

    def press(self, person: str, button: str) -> None:
        query = "SELECT id FROM accounts_account WHERE name = ?"
        ((account_id,),) = self.execute(query, person)
        page = self.browser.post(f"/admin/accounts/account/{account_id}/{button}/")
        assert page.status_code == 200

    def execute(self, statement: str, *values: Any, then: str = "") -> list[Any]:
        path = self.gateway.data_dir / "claudeproxy.sqlite3"
        connected = contextlib.closing(sqlite3.connect(path, timeout=20))
        with connected as database, database:
            rows = database.execute(statement, values).fetchall()
            if then:
                database.execute(then)
            return rows

    def shell(self, script: str) -> str:
        command = ("shell", "--verbosity", "0", "--command", script)
        return self.gateway.manage(*command)

    # --- where it may have left something

    def look(self) -> None:
        """Keep everything that was written or shown, by what it is."""
        data_dir = self.gateway.data_dir
        files = [path for path in sorted(data_dir.rglob("*")) if path.is_file()]
        assert (data_dir / "claudeproxy.sqlite3-wal") in files
        self.places |= {
            "standard output": (data_dir.parent / "stdout").read_text(),
            "what commands print": "\n".join(self.printed),
            "admin pages": "\n".join(self.browser.seen),
            "answers": "\n".join(self.answers),
            "lists of processes": "\n".join(self.arguments),
            "files": "\n".join(path.read_bytes().decode("latin-1") for path in files),
        }


def _says(text: object) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Conversation {text}"}]


def gateway_output(gateway: Gateway, *command: str) -> list[str]:
    """What a command prints that may fail."""
    try:
        return [gateway.manage(*command)]
    except AssertionError as error:
        return [str(error)]


@pytest.fixture(scope="module")
def story(
    sandbox_server: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Story:
    sandbox_server.sandbox.reset()
    settings: dict[str, Any] = {
        "upstream_url": sandbox_server.url,
        "OAUTH_CLIENT_ID": sandbox_server.sandbox.oauth.client_id,
        "OAUTH_AUTHORIZE_URL": f"{sandbox_server.url}/oauth/authorize",
        "OAUTH_TOKEN_URL": f"{sandbox_server.url}{TOKEN_PATH}",
        "LOG_LEVEL": "debug",
    }
    template = gateways.furnish(tmp_path_factory.mktemp("secrets"), accounts=())
    with gateways.running(
        template, tmp_path_factory.mktemp("story"), web_only=False, **settings
    ) as gateway:
        it = Story(gateway, sandbox_server)
        with it.browser.client:
            it.happen()
    it.places["the log"] = gateway.log_text
    left = Furnished(gateway.data_dir, gateway.keys)
    with gateways.running(
        left, tmp_path_factory.mktemp("console"), LOG_FORMAT="console", **settings
    ) as gateway:
        it.go_on(gateway)
    it.places["the log for people"] = gateway.log_text
    return it


PLACES = (
    *("the log", "the log for people", "standard output", "what commands print"),
    *("admin pages", "answers", "lists of processes", "files"),
)


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_in(story: Story, place: str) -> None:
    text = story.places[place]
    shown = [
        name
        for name, secret in story.secrets.items()
        if any(trace in text for trace in traces(secret))
    ]

    assert shown == []


def test_every_place_was_looked_at(story: Story) -> None:
    assert set(story.places) == set(PLACES)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("the log", "token_refreshed"),
        ("the log", "no such token [secret]"),
        ("the log", "Internal Server Error: /oauth/callback"),
        ("the log", '"event":"request_failed"'),
        ("the log for people", "no such token [secret]"),
        ("the log for people", "Traceback"),
        ("the log for people", "request_failed"),
        ("what commands print", "no such token [secret]"),
        ("admin pages", "bad [secret] or [secret]"),
        ("admin pages", "RefreshFailedError"),
        ("admin pages", "Account radia is connected"),
        ("answers", "no such token [secret]"),
        ("lists of processes", "manage.py"),
        ("files", "SQLite format 3"),
    ],
)
def test_what_happened_is_told(story: Story, place: str, words: str) -> None:
    assert words in story.places[place]
