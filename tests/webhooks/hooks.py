"""What the tests of webhooks stand in: an account whose calls happen, receivers, and the service between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from patience import until
from receiver import DEADLINE_S, Receiver

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Status
from trunkline.crm.webhooks.destination import Destinations
from trunkline.crm.webhooks.message import new_secret
from trunkline.crm.webhooks.service import Sending, WebhookService
from trunkline.store.audit import By
from trunkline.store.pool import Pool
from trunkline.store.webhooks import insert_webhook
from trunkline.store.writer import CallWriter

ACCOUNT = "main"
LOOPBACK = (ip_network("127.0.0.0/8"),)
HERE = Destinations(allow_http=True, networks=LOOPBACK)
WHOLE = ("call.ringing", "call.answered", "call.ended")


class House:
    """One account."""

    def __init__(self, pool: Pool, account_id: UUID) -> None:
        self.pool = pool
        self.account_id = account_id
        self.writer = CallWriter(pool, ACCOUNT)
        self.receivers: list[Receiver] = []
        self._calls = 0

    async def receiver(self) -> Receiver:
        receiver = await Receiver().start()
        self.receivers.append(receiver)
        return receiver

    async def close(self) -> None:
        for receiver in self.receivers:
            await receiver.close()

    async def webhook(self, url: str, *event_types: str, profile: str = "STANDARD") -> tuple[UUID, str]:
        """A webhook of the account, as the route adds it: its id and its secret."""
        secret = new_secret()
        webhook = await insert_webhook(
            self.pool, self.account_id, By("cli:test"), url, "", profile, event_types, secret
        )
        assert webhook is not None
        return webhook.id, secret

    def record(self, number: int, happened: int = 3, *, direction: Direction = Direction.INBOUND) -> CallRecord:
        """A call after so many of ringing, answered, ended."""
        start = datetime(2026, 3, 4, 9, 30, tzinfo=UTC) + timedelta(minutes=number)
        status = (Status.RINGING, Status.IN_PROGRESS, Status.COMPLETED)[happened - 1]
        return CallRecord(
            pbx="pbx1", external_id=f"pbx1-{number}.1", channel_id=f"pbx1-{number}.1", direction=direction,
            status=status, from_="02079460001", to="02079460000", phone_number="02079460001",
            from_e164="+442079460001", to_e164="+442079460000", started_at=start, caller_name='Zoë "Z" <b>',
            answered_at=start + timedelta(seconds=5) if happened > 1 else None,
            ended_at=start + timedelta(seconds=65) if happened > 2 else None,
            answered_by="1002" if happened > 1 else None, rang=["1001", "1002"], queue="support", revision=happened,
        )  # fmt: skip

    async def call(self, *, direction: Direction = Direction.INBOUND) -> None:
        """A call that rings, is answered and ends: three events, in three writes."""
        self._calls += 1
        for count, happening in enumerate(WHOLE, 1):
            record = self.record(self._calls, count, direction=direction)
            result = await self.writer.write([CallUpdate(record, (happening,))])
            assert result.events == 1, result

    def service(self, destinations: Destinations = HERE, **options: Any) -> WebhookService:
        step = options.pop("step", lambda name: None)
        return WebhookService(self.pool, Sending(destinations, **options), step=step)

    @asynccontextmanager
    async def running(self, service: WebhookService | None = None) -> AsyncIterator[WebhookService]:
        """A service runs."""
        service = service or self.service()
        task = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def deliveries(self, webhook_id: UUID | None = None) -> list[dict[str, Any]]:
        rows = await self.pool.fetch(
            "SELECT * FROM webhook_delivery WHERE webhook_id = coalesce($1, webhook_id) ORDER BY webhook_id, event_seq",
            webhook_id,
        )
        return [dict(row) for row in rows]

    async def row(self, webhook_id: UUID) -> dict[str, Any]:
        return dict(await self.pool.fetchrow("SELECT * FROM webhook WHERE id = $1", webhook_id))

    async def states(self, webhook_id: UUID) -> list[str]:
        return [one["state"] for one in await self.deliveries(webhook_id)]

    async def until(self, what: str, happens: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        """Poll until `happens` (which may be a coroutine function) gives something true."""
        return await until(what, happens, self.deliveries, deadline_s, 0.02)

    async def until_states(self, webhook_id: UUID, *states: str) -> None:
        async def reached() -> bool:
            return await self.states(webhook_id) == list(states)

        await self.until(f"they are {states}", reached)

    async def due_now(self) -> None:
        """What waits for its time has waited."""
        await self.pool.execute("UPDATE webhook_delivery SET next_at = now() WHERE state = 'pending'")
        await self.pool.execute("UPDATE webhook SET opened_until = NULL, leased_until = NULL")
