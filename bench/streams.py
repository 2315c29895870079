"""The recorded captures as floods: over and over, each time with ids and times of their own, as if new calls had come.

Not a bench: what the benches feed. Without new ids a tracker would meet channels that have hung up, and do nothing.
"""

import re
from pathlib import Path

CAPTURES = Path(__file__).parents[1] / "tests" / "replay" / "captures"
SYSTEMNAME = "pbx1"
STEP_S = 1000  # between two times over

_UNIQUEID = re.compile(rb"(?<![\d.])(\d{10})\.(\d{1,5})(?!\d)")
_TIMESTAMP = re.compile(rb"(?<=Timestamp: )\d{10}")
_CHANNEL = re.compile(rb"-([0-9a-f]{8})(?![0-9a-f-])")
_BRIDGE = re.compile(rb"(?<![0-9a-f-])[0-9a-f]{8}(?=-[0-9a-f]{4}-)")


def captures(pattern: str = "*") -> list[bytes]:
    """What the lab's PBX said in the captures of that name, a session each."""
    read = (file.read_bytes() for file in sorted(CAPTURES.glob(f"{pattern}/ami*.raw")))
    return [data for data in read if f"SystemName: {SYSTEMNAME}\r\n".encode() in data]


def afresh(data: bytes, time_over: int) -> bytes:
    """The same calls again, with other Uniqueids, channel names, bridges and times."""
    later = time_over * STEP_S
    data = _UNIQUEID.sub(lambda m: b"%d.%d" % (int(m[1]) + later, int(m[2])), data)
    data = _TIMESTAMP.sub(lambda m: b"%d" % (int(m[0]) + later), data)
    data = _CHANNEL.sub(lambda m: b"-%08x" % ((int(m[1], 16) + later) % 2**32), data)
    return _BRIDGE.sub(b"%08x" % time_over, data) if time_over else data
