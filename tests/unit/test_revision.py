"""The daemon refuses a schema that is not the newest one; which that is must not be told wrongly."""

import subprocess
import sys

from trunkline.store import migrate
from trunkline.store.revision import HEAD


def test_head_is_the_newest_migration() -> None:
    assert migrate.head() == HEAD


def test_the_daemon_loads_no_sqlalchemy() -> None:
    program = "import sys, trunkline.commands.run; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    unwanted = {"sqlalchemy", "alembic", "mako", "jwt", "cryptography", "authlib", "joserfc", "flask"}  # until needed
    assert set(ran.stdout.split()) & unwanted == set()
