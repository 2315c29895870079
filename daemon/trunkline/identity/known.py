"""Whose a key or a session is, remembered for a moment: no request costs a query, and a revocation soon bites."""

import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from secrets import token_bytes
from typing import Final, Generic, TypeVar
from uuid import UUID

import structlog

from trunkline.identity.limits import Clock
from trunkline.identity.tokens import SECRET_BYTES, Claims, issue, read
from trunkline.store.api_keys import ApiKey, note_key_used, select_key
from trunkline.store.faults import of_the_server, summary
from trunkline.store.pool import Pool
from trunkline.store.sessions import SessionUser, select_secret, select_session
from trunkline.threads import in_thread

KNOWN_FOR_S: Final = 3.0
_MOST: Final = 4096
_USED_EVERY: Final = timedelta(minutes=1)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

log = structlog.get_logger(__name__)


class _Recent(Generic[K, V]):
    """Answers of the last moment, of so many questions at most; "there is none" is an answer too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: OrderedDict[K, tuple[float, V]] = OrderedDict()

    async def get(self, question: K, ask: Callable[[], Awaitable[V]]) -> V:
        now = self._clock()
        if (known := self._found.get(question)) is not None and known[0] > now:
            return known[1]
        answer = await ask()
        self._found.pop(question, None)
        self._found[question] = (now + KNOWN_FOR_S, answer)  # from when it was asked: it may have changed since
        if len(self._found) > _MOST:
            self._found.popitem(last=False)
        return answer

    def forget(self) -> None:
        self._found.clear()


class Known:
    """The keys and sessions of one account.

    account_id: its id; raises while there is none. secret: what signs access tokens; None: the one in the database.
    """

    def __init__(
        self,
        pool: Pool,
        account_id: Callable[[], Awaitable[UUID]],
        *,
        secret: bytes | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._pool = pool
        self._account_id = account_id
        self._secret = secret
        self._keys: _Recent[bytes, ApiKey | None] = _Recent(clock)
        self._sessions: _Recent[tuple[UUID, UUID], SessionUser | None] = _Recent(clock)

    async def key(self, digest: bytes) -> ApiKey | None:
        """The key of this digest, revoked and expired ones too. Raises as asyncpg does."""
        return await self._keys.get(digest, lambda: self._ask_key(digest))

    async def session(self, user_id: UUID, family: UUID) -> SessionUser | None:
        """Who is logged in there; None where nobody is any more. Raises as asyncpg does."""
        return await self._sessions.get((user_id, family), lambda: self._ask_session(user_id, family))

    async def read_token(self, token: str) -> Claims:
        """What an access token says. Raises BadToken, and as asyncpg does."""
        return read(await self.signing_secret(), await self._account_id(), token)

    async def issue_token(self, claims: Claims) -> str:
        """Make an access token. Raises as asyncpg does."""
        return issue(await self.signing_secret(), await self._account_id(), claims)

    def forget(self) -> None:
        """Ask anew: something was revoked here."""
        self._keys.forget()
        self._sessions.forget()

    async def signing_secret(self) -> bytes:
        """What signs; the same in every process of the account. Raises as asyncpg does."""
        if "jwt" not in sys.modules:  # who needs the secret needs that next: not on the event loop
            await in_thread(import_module, "jwt")
        if self._secret is None:
            self._secret = await select_secret(self._pool, await self._account_id(), token_bytes(SECRET_BYTES))
        return self._secret

    async def _ask_key(self, digest: bytes) -> ApiKey | None:
        account_id = await self._account_id()
        key = await select_key(self._pool, account_id, digest)
        if key is not None and (key.last_used_at is None or datetime.now(UTC) - key.last_used_at > _USED_EVERY):
            try:
                await note_key_used(self._pool, account_id, key.id)
            except Exception as error:  # a standby lets read: that is no reason to refuse a key
                if not of_the_server(error):
                    raise
                log.debug("api_key.use_not_noted", error=summary(error))
        return key

    async def _ask_session(self, user_id: UUID, family: UUID) -> SessionUser | None:
        return await select_session(self._pool, await self._account_id(), user_id, family)
