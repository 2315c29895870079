"""One resync under way: the list actions sent, their rows gathered, and Getvar for what the lists do not say."""

from collections.abc import Iterable

import trio

from trunkline.asterisk.event import Frame
from trunkline.asterisk.lists import RESYNC_ACTIONS, ListCollector, Snapshot
from trunkline.asterisk.session import new_action_id
from trunkline.asterisk.wire import Wire

TIMEOUT_S = 15.0  # for all lists together; 1,000 channels take 0.2 s
_PSEUDO = ("Recorder/", "Announcer/", "CBAnn/", "CBRec/", "ConfBridge/", "Bridge/")  # plumbing: no variables of ours


class Resync:
    """The questions of one resync. `feed` it frames while `ask()` waits."""

    def __init__(self, wire: Wire) -> None:
        self.action_ids = {new_action_id(): action for action in RESYNC_ACTIONS}
        self.collector = ListCollector(self.action_ids)
        self._wire = wire
        self._done = trio.Event()

    def feed(self, frame: Frame) -> bool:
        """Take a frame that belongs to one of the answers; False: it is somebody else's."""
        if not self.collector.feed(frame):
            return False
        if self.collector.done:
            self._done.set()
        return True

    async def lists(self, at: float) -> Snapshot | None:
        """Ask all lists; None when they did not come in time. at: epoch seconds by the PBX's clock, now."""
        for action_id, action in self.action_ids.items():
            self._wire.send(action, (), action_id)
        with trio.move_on_after(TIMEOUT_S):
            await self._done.wait()
            return self.collector.snapshot(at)
        return None

    async def variables(
        self, channels: Iterable[dict[str, str]], names: tuple[str, ...]
    ) -> tuple[dict[str, dict[str, str]], set[str]]:
        """Ask each channel for each variable.

        Returns what was found, by Uniqueid (without what is empty or unknown), and the Uniqueids that had no answer.
        """
        asked = [
            (row["Uniqueid"], row["Channel"], name)
            for row in channels
            if not row["Channel"].startswith(_PSEUDO)
            for name in names
        ]
        answers = await self._wire.ask_all(
            [("Getvar", (("Channel", channel), ("Variable", name))) for _, channel, name in asked]
        )
        found: dict[str, dict[str, str]] = {}
        unanswered: set[str] = set()
        for (uniqueid, _, name), answer in zip(asked, answers, strict=True):
            if answer is None:
                unanswered.add(uniqueid)
            elif value := answer.fields.get("Value"):
                found.setdefault(uniqueid, {})[name] = value
        return found, unanswered
