"""Everything the sandbox remembers, in one object."""

from claudeproxy.sandbox.accounts import Accounts
from claudeproxy.sandbox.log import Log
from claudeproxy.sandbox.script import Script


class Sandbox:
    """The accounts, the script of faults and the log of one sandbox."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        self.script = Script()
        self.log = Log()

    def reset(self) -> None:
        """Go back to the start: default accounts, no script, an empty log."""
        self.accounts.restore()
        self.script.clear()
        self.log.restart()
