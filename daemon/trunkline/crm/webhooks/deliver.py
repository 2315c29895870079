"""Deliveries, made: one at a time for a webhook, in the order of the events, as the schedule says.

    lease the first in line -> post -> write down what came of it -> the next

A daemon that is killed in between leaves a lease that ends by itself; the delivery is made again, with the same id.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

import structlog

from trunkline.crm.webhooks.client import DEADLINE_S, Answer, WebhookClient
from trunkline.crm.webhooks.message import body_of, headers_of
from trunkline.crm.webhooks.schedule import HOLDING, WHOLE_S, open_s, wait_s
from trunkline.store.pool import Pool
from trunkline.store.webhook_line import Leased, Settled, lease_next, release, settle
from trunkline.store.webhooks import Try

LEASE_S: Final = DEADLINE_S + 15.0
PER_JOB: Final = 50  # deliveries of one webhook before it is others' turn
TRIES_KEPT: Final = 20
_RELEASE_S: Final = 1.0
_NOT_KEPT: Final = "the event is no longer kept"

log = structlog.get_logger(__name__)


class OthersTurn(Exception):
    """There is more to deliver for this webhook, after others; `delay_s` from now."""

    def __init__(self, delay_s: float) -> None:
        super().__init__("others first")
        self.delay_s = delay_s


class Deliverer:
    """Delivers for any webhook of the database.

    suspects: how many webhooks at a time whose last try failed, so that those that hang leave room for the others.
    step: is told each step's name before it is taken (for tests that kill).
    """

    def __init__(
        self, pool: Pool, client: WebhookClient, *, suspects: int = 8, step: Callable[[str], None] = lambda name: None
    ) -> None:
        self._pool = pool
        self._client = client
        self._suspects = asyncio.Semaphore(suspects)
        self._step = step
        self.outcomes: dict[str, int] = dict.fromkeys(("delivered", "retried", "failed", "gone", "refused"), 0)

    async def take(self, webhook_id: UUID) -> None:
        """Deliver what is due for a webhook. Raises OthersTurn where that is not all, and as asyncpg does."""
        lease = uuid4()
        try:
            for _ in range(PER_JOB):
                delivery = await lease_next(self._pool, webhook_id, lease, LEASE_S, HOLDING)
                if delivery is None:
                    return
                if delivery.failures == 0:
                    await self._deliver(webhook_id, lease, delivery)
                    continue
                if self._suspects.locked():
                    raise OthersTurn(1.0)
                async with self._suspects:
                    await self._deliver(webhook_id, lease, delivery)
            raise OthersTurn(0.0)
        except (Exception, asyncio.CancelledError):
            with suppress(Exception):  # it ends by itself
                await asyncio.wait_for(release(self._pool, webhook_id, lease), _RELEASE_S)
            raise

    async def _deliver(self, webhook_id: UUID, lease: UUID, delivery: Leased) -> None:
        at = datetime.now(UTC)
        answer, sent = await self._post(delivery, at)
        self._step("settle")
        settled, outcome = _settled(delivery, answer, at, sent)
        await settle(self._pool, webhook_id, lease, delivery, settled, most_tries=TRIES_KEPT, whole_s=WHOLE_S)
        self.outcomes[outcome] += 1
        _log(webhook_id, delivery, settled, outcome)

    async def _post(self, delivery: Leased, at: datetime) -> tuple[Answer, bool]:
        """What the receiver said, and whether there was anything to send."""
        if delivery.event is None:
            return Answer(None, _NOT_KEPT, None, 0), False
        body = body_of(delivery.profile, delivery.event)
        headers = headers_of(delivery.message_id, body, delivery.secrets, at)
        self._step("post")
        return await self._client.post(delivery.url, body, headers), True


def _settled(delivery: Leased, answer: Answer, at: datetime, sent: bool) -> tuple[Settled, str]:
    """What a try comes to, and its word in the metrics."""
    wait = None if answer.delivered or answer.gone or not sent else wait_s(delivery.attempts + 1)
    state = "delivered" if answer.delivered else "failed" if wait is None else "pending"
    failures = 0 if answer.delivered else delivery.failures + sent
    outcome = "gone" if answer.gone else "refused" if answer.refused else "retried" if wait is not None else state
    settled = Settled(
        state=state,
        wait_s=wait,
        status_code=answer.status,
        error=answer.error,
        response=answer.beginning,
        tried=Try(at=at, status_code=answer.status, error=answer.error, duration_ms=answer.duration_ms),
        failures=failures,
        open_s=open_s(failures),
        gone=answer.gone,
    )
    return settled, outcome


def _log(webhook_id: UUID, delivery: Leased, settled: Settled, outcome: str) -> None:
    told = {"webhook": str(webhook_id), "message": delivery.message_id, "attempt": delivery.attempts + 1}
    if settled.gone:
        log.warning(
            "webhook.gone", todo="it answered 410 and is disabled; enable it once it is to be told again", **told
        )
    elif outcome == "delivered":
        log.debug("webhook.delivered", **told)
    elif settled.state == "failed":
        log.warning("webhook.given_up", error=settled.error, todo="replay it once the receiver is mended", **told)
    else:
        log.info("webhook.failed", error=settled.error, again_in_s=settled.wait_s, left_alone_s=settled.open_s, **told)
