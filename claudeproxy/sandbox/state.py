"""Everything the sandbox remembers, in one object."""

from datetime import timedelta

from claudeproxy.sandbox.accounts import Accounts, Caller, RawHeaders
from claudeproxy.sandbox.clock import Clock
from claudeproxy.sandbox.log import Log
from claudeproxy.sandbox.oauth.grants import ACCESS_LIFETIME
from claudeproxy.sandbox.oauth.server import DEFAULT_CLIENT_ID, AuthorizationServer
from claudeproxy.sandbox.objects.store import Objects
from claudeproxy.sandbox.script import Script


class Sandbox:
    """The accounts, what they own, the sign-ins, the faults, the log and the clock."""

    def __init__(
        self,
        *,
        client_id: str = DEFAULT_CLIENT_ID,
        access_token_lifetime: timedelta = ACCESS_LIFETIME,
    ) -> None:
        self.clock = Clock()
        self.accounts = Accounts()
        self.script = Script()
        self.objects = Objects()
        self.log = Log(clock=self.clock)
        self.oauth = AuthorizationServer(
            self.clock,
            self.log,
            client_id=client_id,
            access_token_lifetime=access_token_lifetime,
        )

    def identify(self, headers: RawHeaders) -> Caller:
        """Find out whose key or access token a request carries."""
        return self.accounts.identify(headers, self.oauth.find_token)

    def knows(self, name: str) -> bool:
        """Tell whether there is an account or a person of that name."""
        return name in self.accounts or name in self.oauth.people

    def reset(self) -> None:
        """Go back to the start: default accounts, nothing kept, real time."""
        self.clock.restore()
        self.accounts.restore()
        self.oauth.restore()
        self.script.clear()
        self.objects.restore()
        self.log.restart()
