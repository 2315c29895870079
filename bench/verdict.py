"""What every bench prints alike: a headline with the machine's load, and PASS or FAIL for each promise. No bench."""

import os


def headline(what: str) -> None:
    """Say what is measured, and how busy the machine is before it begins."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    beside = "others work here too: figures are worse than they need be" if load > cpus / 2 else "quiet enough"
    print(f"{what}\nload average {load:.2f} on {cpus} CPUs: {beside}", flush=True)


class Promises:
    """The promises of one bench, each told as soon as it is known."""

    def __init__(self) -> None:
        self.broken = 0

    def tell(self, promise: str, figure: str, *, kept: bool) -> None:
        """Print the verdict on one line; run.py gathers those that begin with FAIL."""
        self.broken += not kept
        print(f"{'PASS' if kept else 'FAIL'}  {promise}: {figure}", flush=True)

    @property
    def status(self) -> int:
        """What the bench exits with: 0 when every promise was kept."""
        return int(self.broken > 0)
