"""The tests that touch tables, once more on PostgreSQL."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings

pytestmark = pytest.mark.processes

ROOT = Path(settings.BASE_DIR)
SERVER = os.environ.get(
    "TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
FILES = sorted(
    str(path)
    for path in Path(__file__).parent.glob("test_*.py")
    if "django_db" in path.read_text() and path != Path(__file__)
)


@pytest.fixture
def database() -> Iterator[str]:
    """The name of an empty database, dropped at the end with what the tests made."""
    try:
        connection = psycopg.connect(SERVER, connect_timeout=2, autocommit=True)
    except psycopg.OperationalError as error:
        what = f"no PostgreSQL server: {str(error).splitlines()[0]}"
        if os.environ.get("REQUIRE_POSTGRES") == "1":
            pytest.fail(what)
        pytest.skip(what)
    name = f"claudeproxy_test_{uuid.uuid4().hex[:12]}"
    with connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield name
        for each in (name, f"test_{name}"):
            connection.execute(f"DROP DATABASE IF EXISTS {each} WITH (FORCE)".encode())


def test_everything_holds_on_postgresql(database, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not processes", *FILES],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": f"{SERVER.rpartition('/')[0]}/{database}",
            "TEST_DATA_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout
