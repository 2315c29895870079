"""`make bench` goes on after a bench that fails, and says in the end which promises were not kept."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def run(folder: Path, **benches: str) -> subprocess.CompletedProcess[str]:
    paths = [folder / f"{name}.py" for name in benches]
    for path, source in zip(paths, benches.values(), strict=True):
        path.write_text(source)
    words = [sys.executable, str(BENCH / "run.py"), *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_what_was_not_kept_stands_at_the_end(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        slow="import sys; print('FAIL  fast: 3 s'); print('PASS  small: 1 kB'); sys.exit(1)",
        broken="print('PASS  so far'); raise ValueError('oops')",
        silent="print('nothing to say')",
        well="print('PASS  fast: 1 s')",
    )
    assert ran.returncode == 1
    assert ran.stdout.startswith("4 benches, about 4 minutes")
    before, _, summary = ran.stdout.partition("== summary")
    assert "ValueError: oops" in before
    assert "== well\nPASS  fast: 1 s" in before
    assert summary.splitlines()[1:] == [
        "NOT KEPT  slow.py: fast: 3 s",
        "NOT KEPT  broken.py: it broke off with status 1",
        "NOT KEPT  silent.py: it told of no promise",
        "not every promise was kept",
    ]


def test_all_kept(tmp_path: Path) -> None:
    ran = run(tmp_path, well="print('PASS  fast: 1 s')")
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "every promise was kept")


def test_every_bench_is_run_and_tells_its_verdict() -> None:
    runner = (BENCH / "run.py").read_text()
    sources = {path.stem: path.read_text() for path in BENCH.glob("*.py") if path.stem != "run"}
    benches = {name: source for name, source in sources.items() if "def main()" in source}
    assert len(benches) >= 6
    for name, source in benches.items():
        assert f'"{name}":' in runner, name
        assert "headline(" in source, name
        assert "promises.tell(" in source, name
