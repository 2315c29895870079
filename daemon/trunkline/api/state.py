"""What the handlers of one app share, and how they answer."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple
from uuid import UUID

from aiohttp import web

from trunkline.api.answers import Answers
from trunkline.api.feed import Feed
from trunkline.api.guard import Guard
from trunkline.api.problem import Problem
from trunkline.api.representation import json_response
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.identity.destinations import Destinations
from trunkline.identity.known import Known
from trunkline.identity.limits import Buckets
from trunkline.identity.oidc import Issuer
from trunkline.identity.passwords import Passwords
from trunkline.inbox.media import UploadLimits, Uploads
from trunkline.inbox.secrets import Vault
from trunkline.metrics import Metrics
from trunkline.objects.s3 import ObjectStore
from trunkline.store.commands import DONE, Limits
from trunkline.store.pool import Pool
from trunkline.store.queries import select_account
from trunkline.store.recordings import EnqueueRecordings

__all__ = [
    "DEADLINE",
    "KNOWN",
    "OPEN_HERE",
    "REQUEST_ID",
    "STATE",
    "Access",
    "Link",
    "State",
    "json_response",
]


class Link(NamedTuple):
    """How the link to one PBX stands. `detail` says why it is not up and what to do."""

    pbx: str
    up: bool
    detail: str = ""


class Access(NamedTuple):
    """Who is let in, as the settings say."""

    keys: Sequence[str] = ()  # each may do everything
    required: bool = False  # nobody is let in without a key or a login, also where `keys` is empty
    secret: bytes | None = None  # signs access tokens; None: one of the database's own
    origins: Sequence[
        str
    ] = ()  # of other sites whose pages may ask and open WebSockets; no cookie goes with what they ask
    rate_limit: float = 0.0  # requests a second of each caller; 0: no limit
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()  # whose X-Forwarded-For is believed


class Commands(NamedTuple):
    """What may be commanded, as the settings say."""

    destinations: Destinations = Destinations()
    limits: Limits = Limits()


OPEN_HERE = Access()
"""Everybody on this machine, and nobody else."""


class State:
    """One app's share of the process."""

    def __init__(
        self,
        pool: Pool,
        account: str,
        access: Access,
        metrics: Metrics,
        *,
        open_routes: Collection[str],
        longest_bodies: Mapping[tuple[str, str], int],
        head: str | None,
        links: Callable[[], Sequence[Link]],
        objects: ObjectStore | None,
        uploads: UploadLimits,
        enqueue: EnqueueRecordings | None,
        webhooks: WebhookClient,
        oidc: Issuer | None,
        vault: Vault,
        telegram: str,
        region: str | None,
        commands: Commands,
        document: bytes,
        index: bytes,
    ) -> None:
        self.pool = pool
        self.account = account
        self.access = access
        known = Known(pool, self.account_id, secret=access.secret)
        buckets = Buckets(access.rate_limit) if access.rate_limit else None
        self.guard = Guard(access.keys, open_routes, known, required=access.required, buckets=buckets)
        self.known = known
        self.passwords = Passwords()
        self.metrics = metrics
        self.longest_bodies = longest_bodies  # by method and path
        self.head = head  # the newest migration; None: not checked
        self.links = links
        self.objects = objects  # where recordings are; None: not configured
        self.uploads = None if objects is None else Uploads(pool, objects, uploads)
        self.enqueue = enqueue  # has recordings worked on
        self.webhooks = webhooks  # posts to receivers
        self.oidc = oidc  # where users may log in; None: nowhere else
        self.vault = vault  # of the secrets of integrations
        self.telegram = telegram  # where the Bot API is
        self.region = region  # the country of numbers that are written without one
        self.commands = commands
        self.answers = Answers()
        self.document = document  # OpenAPI
        self.index = index  # the page at /
        self.trusted_proxies = tuple(access.trusted_proxies)
        self.origins = frozenset(access.origins)  # of other sites' pages that are let in
        # Whoever asks first is answered first: the pool's own line lets newcomers past those who wait. One connection
        # is the feed's.
        self.room = asyncio.Semaphore(max(1, pool.get_max_size() - 1))
        self.feed = Feed(pool, self.account_id, also={DONE: self.answers.told})
        self._account_id: UUID | None = None

    async def account_id(self) -> UUID:
        """Return the id of the account that is served. Raises Problem while there is none."""
        if self._account_id is None:
            self._account_id = await select_account(self.pool, self.account)
        if self._account_id is None:
            raise Problem(
                "account_missing",
                "The account of the configuration (account.name) is not in the database yet; "
                "`trunkline run` makes it with the first call. Try again then.",
                headers={"Retry-After": "5"},
            )
        return self._account_id


STATE: web.AppKey[State] = web.AppKey("state", State)
KNOWN = web.RequestKey("known", bool)  # whether the request came with a key, or needs none
DEADLINE = web.RequestKey("deadline", asyncio.Timeout)  # of the handler
REQUEST_ID = web.RequestKey("request_id", str)  # also in the log, the answer and the audit
