"""The real settings, plus the few lines that must differ under test."""

import os
import tempfile
from pathlib import Path

# A directory of its own, so that a test never meets an operator's `var/` or `.env`.
os.environ["DATA_DIR"] = os.environ.get("TEST_DATA_DIR") or tempfile.mkdtemp(
    prefix="claudeproxy-tests-"
)

from claudeproxy.settings import *  # noqa: F403
from claudeproxy.settings import DATA_DIR, DATABASES

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file: threads do not share an in-memory database as they share the real one.
    DATABASES["default"]["TEST"] = {"NAME": str(Path(DATA_DIR) / "test.sqlite3")}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
UPSTREAM_BASE_URL = "http://127.0.0.1:9"  # discard: nobody answers there
