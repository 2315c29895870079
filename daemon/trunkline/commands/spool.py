"""`trunkline spool`: beside a PBX, its recordings into object storage; the daemon that follows it is elsewhere."""

import argparse
import asyncio
import signal
from contextlib import suppress
from functools import partial

import structlog

from trunkline import config
from trunkline.app import open_recordings
from trunkline.commands.configured import add_config, with_settings
from trunkline.config_reading import ConfigError
from trunkline.recordings.spool import Directories, RecordingSpool
from trunkline.store.faults import advice, of_the_server, summary

_POLL_S = 0.2

log = structlog.get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config and --once."""
    add_config(parser)
    parser.add_argument("--once", action="store_true", help="stop when all that is there now is dealt with")


def main(arguments: argparse.Namespace) -> int:
    """Run; 0 when asked to stop or done, 1 when the database cannot be used (--once), 2 when the settings are wrong."""
    return with_settings(arguments, partial(_store, source=str(config.locate(arguments.config)), once=arguments.once))


def _store(settings: config.Settings, *, source: str, once: bool) -> int:
    return asyncio.run(_run(settings, *_directories(settings, source), once=once))


def _directories(settings: config.Settings, source: str) -> tuple[Directories, list[str]]:
    """The directories of the PBXs by systemname, and those names. Raises ConfigError."""
    problems = [] if settings.recordings.endpoint else ["recordings.endpoint: is missing; allowed: the URL of an S3"]
    spools: dict[str, RecordingSpool] = {}
    mailboxes: dict[str, RecordingSpool] = {}
    ari: dict[str, RecordingSpool] = {}
    for n, pbx in enumerate(settings.pbx, 1):
        if pbx.recordings is None and pbx.voicemail is None and pbx.ari_recordings is None:
            continue
        if pbx.systemname is None:
            problems.append(
                f"pbx[{n}].systemname: is missing, and nobody here asks the PBX; allowed: that of asterisk.conf"
            )
            continue
        if pbx.recordings is not None:
            spools[pbx.systemname] = RecordingSpool(pbx.recordings.resolve(), pbx.recordings_seen_as)
        if pbx.voicemail is not None:
            mailboxes[pbx.systemname] = RecordingSpool(pbx.voicemail.resolve(), None, "voicemail")
        if pbx.ari_recordings is not None:
            seen_as = pbx.ari_recordings_seen_as
            ari[pbx.systemname] = RecordingSpool(pbx.ari_recordings.resolve(), seen_as, "ari_recordings")
    names = sorted({*spools, *mailboxes, *ari})
    if not names and not problems:
        problems.append("pbx.recordings: no PBX has any; allowed: the directory where it records")
    if problems:
        raise ConfigError(source, problems)
    return Directories(lambda: spools, lambda: mailboxes, lambda: ari), names


async def _run(
    settings: config.Settings,
    directories: Directories,
    names: list[str],
    *,
    once: bool,
) -> int:
    service = await open_recordings(settings, directories)
    loop, this, work = asyncio.get_running_loop(), asyncio.current_task(), asyncio.create_task(service.run())
    assert this is not None  # noqa: S101  # a coroutine that runs has a task
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, this.cancel)
    log.info("spool.started", pbxs=names, storage=settings.recordings.endpoint)
    status = 0
    try:
        if once:
            await service.prepare()
            await service.sweeper.sweep()
            while await service.runner.due():  # noqa: ASYNC110  # the queue is in another process
                await asyncio.sleep(_POLL_S)
        else:
            await work
    except asyncio.CancelledError:
        log.info("spool.stopping")
    except Exception as error:
        if not of_the_server(error):
            raise
        log.error("spool.cannot_go_on", error=summary(error), todo=advice(error))
        status = 1
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        await service.close()
    return status
