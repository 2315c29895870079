"""`trunkline api`: the API alone, on one asyncio loop. No PBX, no tracker, no trio; and what it shares with the daemon.

It sees only PostgreSQL, the object storage and the receivers of webhooks that it is asked to test. What happens comes
to it by the events table, so any number of them behave as the one inside `trunkline run` does.
"""

import asyncio
import ipaddress
import signal
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

import asyncpg
import structlog

from trunkline import config
from trunkline.api import Access, Commands, create_app, serve
from trunkline.config import ApiSettings, Integrations, Oidc, Recordings, Webhooks
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.destination import Destinations
from trunkline.garbage import give_back, settle
from trunkline.identity.destinations import Destinations as CallDestinations
from trunkline.inbox.media import UploadLimits
from trunkline.inbox.secrets import Vault
from trunkline.metrics import Metrics
from trunkline.store.commands import Limits
from trunkline.store.faults import advice, of_the_server, summary
from trunkline.store.pool import NoRowSecurity, Pool, open_pool
from trunkline.store.queries import select_migration
from trunkline.store.recordings import EnqueueRecordings
from trunkline.store.revision import HEAD
from trunkline.store.row_security import API_ROLE

if TYPE_CHECKING:
    from trunkline.identity.oidc import Issuer
    from trunkline.objects.s3 import ObjectStore

CONNECTIONS = 8  # of the API with PostgreSQL; one of them is its feed's
REACH_S = 3.0  # how long the start waits for the database

log = structlog.get_logger(__name__)


class StartError(Exception):
    """The process cannot run as it is set up; the text says why and what to do."""


async def serve_alone(settings: ApiSettings, ready: Callable[[str], object] = lambda url: None) -> None:
    """Serve the API until SIGTERM, SIGINT or cancelled; `ready` is called with its URL. Raises StartError."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this is not None  # noqa: S101  # a coroutine that runs has a task
    http, account = settings.http, settings.account.name
    pool = await open_pool(settings.database.url.reveal(), max_size=CONNECTIONS, reading=True, account=account)
    objects: ObjectStore | None = None
    enqueue: EnqueueRecordings | None = None
    stopping = asyncio.Event()
    try:
        await _check_schema(pool)
        if settings.recordings.endpoint:
            from trunkline.recordings.jobs import enqueue_recordings  # here: 14 MB, for who uses it

            objects, enqueue = open_objects(settings.recordings), enqueue_recordings
        app = create_app(
            pool,
            account=account,
            metrics=Metrics(version("trunkline")),
            access=access(settings),
            head=HEAD,
            objects=objects,
            uploads=uploads(settings),
            enqueue=enqueue,
            webhooks=WebhookClient(destinations(settings.webhooks)),
            oidc=open_issuer(settings.oidc),
            vault=vault(settings.integrations),
            region=settings.region,
            commands=commanding(settings.commands, settings.region),
        )

        def stop(number: signal.Signals) -> None:
            if not stopping.is_set():
                stopping.set()
                log.info("api.stopping", signal=number.name)
                this.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        settle()
        log.info("api.started", version=version("trunkline"))
        try:
            await serve(app, http.host, http.port, ready, reuse_port=http.reuse_port)
        except OSError as error:
            raise StartError(cannot_listen(settings, error)) from error
        except asyncio.CancelledError:
            if not stopping.is_set():
                raise
    finally:
        pool.terminate()
        if objects is not None:
            objects.close()
        log.info("api.stopped")


async def _check_schema(pool: Pool) -> None:
    """Refuse another schema than this version's. A database that is away is waited for: /readyz says so meanwhile."""
    try:
        async with asyncio.timeout(REACH_S):
            found = await select_migration(pool)
    except NoRowSecurity as error:
        todo = f"run `trunkline migrate`, or GRANT {API_ROLE} to the role of database.url"
        raise StartError(f"{error}: {todo}") from error
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise StartError(f"database.url cannot be used: {error}") from error
    except Exception as error:
        if not of_the_server(error):
            raise
        log.error("database.away", detail=summary(error), todo=advice(error), meanwhile="it is answered 503")
        return
    if found != HEAD:
        raise StartError(f"{wrong_schema(found)}: run `trunkline migrate`")


def wrong_schema(found: str | None) -> str:
    """What is wrong with a schema at that migration."""
    at = "has no schema yet" if found is None else f"is at migration {found}"
    return f"the database {at}, and this version needs {HEAD}"


def cannot_listen(settings: ApiSettings, error: OSError) -> str:
    """Why the API has no port, and what to do."""
    http = settings.http
    todo = "set http.port to a free one, or 0 for any"
    return f"cannot listen on {http.host}:{http.port} ({error.strerror}): {todo}"


def access(settings: ApiSettings) -> Access:
    """Who is let in."""
    http, auth = settings.http, settings.auth
    return Access(
        keys=[key.reveal() for key in http.api_keys],
        required=auth.required,
        secret=auth.secret.reveal().encode() if auth.secret is not None else None,
        origins=http.allowed_origins,
        rate_limit=http.rate_limit,
        trusted_proxies=[ipaddress.ip_network(text) for text in http.trusted_proxies],
    )


def uploads(settings: ApiSettings) -> UploadLimits:
    """How long the files may be that are taken."""
    media = settings.media
    return UploadLimits(
        file=media.largest_mb * 1_000_000,
        request=media.largest_request_mb * 1_000_000,
        at_once=media.at_once,
        prefix=settings.recordings.prefix,
    )


def vault(integrations: Integrations) -> Vault:
    """What seals the secrets of integrations."""
    return Vault([bytes.fromhex(key.reveal()) for key in integrations.secret_keys])


def open_issuer(oidc: Oidc) -> "Issuer | None":
    """Where users log in beside here; nothing is asked yet."""
    if not oidc.issuer:
        return None
    from trunkline.identity.oidc_client import OidcClient  # here: 10 MB, for who uses it

    return OidcClient(
        oidc.issuer,
        oidc.client_id or "",
        None if oidc.client_secret is None else oidc.client_secret.reveal(),
        oidc.redirect_url,
        label=oidc.label,
        default_role=oidc.default_role,
    )


def commanding(told: config.Commands, region: str | None) -> Commands:
    """What the API may ask for; region: of numbers without a country. Who follows the PBX looks again, with its own."""
    return Commands(call_destinations(told, region), Limits(told.per_second, told.at_once, told.per_day))


def call_destinations(told: config.Commands, region: str | None) -> CallDestinations:
    """Where calls may be made to."""
    return CallDestinations(told.destinations, told.denied, premium=told.premium, region=region)


def destinations(told: Webhooks) -> Destinations:
    """Where webhooks may lead."""
    networks = tuple(ipaddress.ip_network(text) for text in told.allow_networks)
    return Destinations(allow_http=told.allow_http, networks=networks)


def open_objects(kept: Recordings) -> "ObjectStore":
    """The bucket where recordings are; nothing is connected yet."""
    from trunkline.objects.s3 import ObjectStore

    return ObjectStore(
        kept.endpoint,
        kept.bucket,
        kept.access_key.reveal(),
        kept.secret_key.reveal(),
        region=kept.region,
        path_style=kept.path_style,
        encrypted=kept.encryption == "sse-s3",
        at_once=kept.at_once + 8,
        opened=give_back,
    )
