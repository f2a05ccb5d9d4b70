"""`manage.py jobs`: the background jobs alone, without web workers."""

import sys
from typing import Any

from django.core.checks import Tags
from django.db import DEFAULT_DB_ALIAS

from claudeproxy import bootstrap, cluster, process
from claudeproxy.commands import DatabaseCommand


class Command(DatabaseCommand):
    help = (
        "Run the background jobs until SIGTERM or Ctrl-C. `serve` runs them as well; "
        "use this beside `serve --web-only`. It expects a migrated database."
    )

    def handle(self, *_: Any, skip_checks: bool = False, **__: Any) -> None:
        with process.forkable_database():
            if not skip_checks:
                self.check(tags=[Tags.database], databases=[DEFAULT_DB_ALIAS])
            bootstrap.require_prepared()
        self.stdout.write("Background jobs are running. Stop them with Ctrl-C.")
        self.stdout.flush()
        sys.exit(cluster.run())
