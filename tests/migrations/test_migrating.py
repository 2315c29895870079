"""The schema brought up by another process, as the daemon sees it."""

from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from trunkline.migrating import migrate


def test_what_is_no_json_is_logged_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has Python say something before our module comes to run."""
    (tmp_path / "sitecustomize.py").write_text("print('a word of the site'); print('[1]', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with capture_logs() as logs, pytest.raises(ConnectionError):
        trio.run(migrate, "postgresql://nobody@127.0.0.1:1/none")
    assert [entry["text"] for entry in logs if entry["event"] == "migration.said"] == ["a word of the site", "[1]"]
