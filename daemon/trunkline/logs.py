"""How the daemon logs: structlog to stderr, pretty or JSON, a constant event name and key=value.

Secrets are never shown. At info and above a phone number shows its last two digits only; at debug it is whole,
which an admin turns on to chase one call and off again.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

_SECRET_KEYS = re.compile(r"secret|passw|token|api_?key|authorization|cookie|credential|dsn|challenge", re.IGNORECASE)
_NUMBER_KEYS = frozenset(
    "from from_ to number phone_number caller callee callerid exten party answered_by last_party did dialled".split()
)
_URL_PASSWORD = re.compile(r"(://)[^/\s@]*@")
# Seven digits or more. Not the epoch of a uniqueid (…-1763821234.17), nor the first group of a uuid.
_NUMBER = re.compile(r"(?<![\w.+-])\+?\d{5,}(\d\d)(?!\w|\.\d|-[0-9a-f]{4}-)")
_QUIET = {"aiohttp.access": logging.WARNING, "asyncio": logging.WARNING, "alembic": logging.WARNING}


def configure(level: str = "info", style: str = "pretty", stream: TextIO | None = None) -> None:
    """Set up logging for the process, the standard library's included. `style` is "pretty" or "json"."""
    out = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = structlog.processors.JSONRenderer()
    if style == "pretty":
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    logging.root.handlers[:] = [_Bridge()]
    logging.root.setLevel(threshold)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(threshold, quiet))


def redact(_: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Take secrets out of a log line, and at info and above all but the last two digits of numbers."""
    numbers = method != "debug"
    return {key: _redacted(key, value, numbers) for key, value in event.items()}


def _redacted(key: str, value: Any, numbers: bool) -> Any:
    if _SECRET_KEYS.search(key):
        return "***"
    if isinstance(value, str):
        value = _URL_PASSWORD.sub(r"\1***@", value)
        if numbers and key != "timestamp":
            value = _masked(value) if key in _NUMBER_KEYS else _NUMBER.sub(r"…\1", value)
        return value
    if isinstance(value, Mapping):
        return {k: _redacted(str(k), v, numbers) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(key, item, numbers) for item in value]
    if isinstance(value, int | float | None):
        return value
    return _redacted(key, str(value), numbers)


def _masked(number: str) -> str:
    """An extension of up to four digits is no personal data; anything longer loses all but its end."""
    return number if len(number) <= 4 else "…" + number[-2:]


class _Bridge(logging.Handler):
    """Hands what libraries log by the standard library to structlog, so that it is redacted like the rest."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, "library.log", library=record.name, text=record.getMessage(), exc_info=record.exc_info)
