"""`manage.py jobs`: the background jobs alone, without web workers."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from claudeproxy import cluster


class Command(BaseCommand):
    help = (
        "Run the background jobs until SIGTERM or Ctrl-C. `serve` runs them as well; "
        "use this beside `serve --web-only`. It expects a migrated database."
    )

    def handle(self, *_: Any, **__: Any) -> None:
        self.stdout.write("Background jobs are running. Stop them with Ctrl-C.")
        self.stdout.flush()
        sys.exit(cluster.run())
