"""Every bench, one after another, and in the end which promises were not kept.

    .venv/bin/python bench/run.py [BENCH.py ...]

A bench prints its headline, and a line that begins with PASS or FAIL for each promise. One that fails or breaks off
does not keep the others from running. Exit status 1 when a promise was broken, or a bench broke off.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# seconds, on two cores
ABOUT_S = {
    "codec": 10,
    "injection": 30,
    "memory": 60,
    "link": 35,
    "store": 15,
    "daemon": 50,
    "live": 45,
    "recordings": 150,
    "api": 150,
}


def run(bench: Path) -> list[str]:
    """Run one, showing what it prints; returns what is to be said of it in the end."""
    failed, verdicts = [], 0
    words = [sys.executable, "-u", str(bench)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            verdicts += line.startswith(("PASS ", "FAIL "))
            if line.startswith("FAIL "):
                failed.append(line.removeprefix("FAIL").strip())
    if process.returncode and not failed:
        failed.append(f"it broke off with status {process.returncode}")
    elif not verdicts:
        failed.append("it told of no promise")
    return [f"{bench.name}: {what}" for what in failed]


def main() -> int:
    """Run them; 1 where not every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="*", type=Path, help="(default: all)")
    benches: list[Path] = parser.parse_args().bench or [HERE / f"{name}.py" for name in ABOUT_S]
    about_s = sum(ABOUT_S.get(bench.stem, 60) for bench in benches)
    print(f"{len(benches)} benches, about {about_s / 60:.0f} minutes on two cores", flush=True)
    began, failed = time.monotonic(), []
    for bench in benches:
        print(f"\n== {bench.stem}", flush=True)
        failed += run(bench)
    print(f"\n== summary, after {(time.monotonic() - began) / 60:.1f} minutes")
    for what in failed:
        print(f"NOT KEPT  {what}")
    print("not every promise was kept" if failed else "every promise was kept")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
