"""Answers: who waits for a command hears when it has ended, all of them by the one connection that listens."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID


class Answers:
    """The requests that wait for a command. What is told is only that it is time to look."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def of(self, command_id: UUID) -> Iterator[asyncio.Event]:
        """What is set when that command has ended; several may wait for one."""
        key, news = str(command_id), asyncio.Event()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(news)
        try:
            yield news
        finally:
            waiting.discard(news)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    def told(self, payload: str) -> None:
        """A command has ended: "ACCOUNT_ID COMMAND_ID"."""
        for news in self._waiting.get(payload.rpartition(" ")[2], ()):
            news.set()
