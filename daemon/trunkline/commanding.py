"""The core's half of commands: taken out of the database, handed to the operator of their PBX, and answered there.

A command is begun once: in time, by this run. If this process dies over it, or the database is away for as long as its
lease lasts, it ends as unknown, and nobody begins it again.
"""

import time
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog
import trio

from trunkline.aio import AsyncioThread
from trunkline.operating import Operator
from trunkline.store.command_queue import Claimed, CommandQueue, Outcome
from trunkline.store.faults import summary

AT_ONCE: Final = 64
MARGIN_S: Final = 5.0  # of the lease, to write down what came of it
STOP_S: Final = 2.0  # to do so when the daemon stops
_AGAIN_S: Final = 1.0

log = structlog.get_logger(__name__)


class Commanding:
    """The commands of all PBXs of this process. `outcomes`: how many ended how, for metrics."""

    def __init__(self, aio: AsyncioThread, queue: CommandQueue, operators: Sequence[Operator]) -> None:
        self._aio = aio
        self._queue = queue
        self._operators = operators
        self._room = trio.Semaphore(AT_ONCE)
        self.outcomes: dict[str, int] = {"done": 0, "failed": 0, "unknown": 0}

    async def run(self) -> NoReturn:
        """Carry commands out, for ever: only cancellation ends it."""
        async with trio.open_nursery() as nursery:
            while True:
                async with self._room:
                    operators = {operator.pbx: operator for operator in self._operators if operator.pbx}
                    most = self._room.value + 1
                    taken = await self._aio.call(self._queue.take, sorted(operators), most)
                for command in taken:
                    nursery.start_soon(self._carry_out, operators[command.pbx], command)
        raise AssertionError("the loop has no end")

    async def _carry_out(self, operator: Operator, command: Claimed) -> None:
        """Do it and write down what came of it: also when we are told to stop meanwhile, for it has happened."""
        async with self._room:
            asked_s = time.monotonic() - command.asked_at
            outcome = Outcome("unknown", "outcome_unknown", "the daemon stopped, or its time was over, meanwhile")
            try:
                with trio.move_on_after(command.lease_s - asked_s - MARGIN_S):
                    outcome = await operator.carry_out(command, trio.current_time() + command.left_s - asked_s)
            except Exception:
                log.exception("command.fault", pbx=command.pbx, kind=command.kind.value, command=str(command.id))
                outcome = Outcome("unknown", "outcome_unknown", "the daemon failed over it; its log has why")
            finally:
                await self._finish(command, outcome)

    async def _finish(self, command: Claimed, outcome: Outcome) -> None:
        """Say what came of it: for a moment also when we are told to stop, else for as long as its lease lasts."""
        self.outcomes[outcome.state] += 1
        log.info(
            "command.ended",
            pbx=command.pbx,
            kind=command.kind.value,
            command=str(command.id),
            state=outcome.state,
            code=outcome.code,
        )
        with trio.CancelScope(shield=True), trio.move_on_after(STOP_S):
            await self._write(command, outcome)
            return
        with trio.move_on_after(command.lease_s):
            await self._write(command, outcome)

    async def _write(self, command: Claimed, outcome: Outcome) -> None:
        while True:
            try:
                await self._aio.call(self._queue.finish, command.id, outcome)
                return
            except Exception as error:
                log.warning("command.not_written", command=str(command.id), error=summary(error))
            await trio.sleep(_AGAIN_S)
