"""A TCP proxy that breaks the connection as networks do: cut, held back, frozen so that neither end notices."""

from contextlib import suppress

import trio


class Proxy:
    """Forwards 127.0.0.1:`port` to the target. Change its attributes at any time."""

    def __init__(self, host: str, port: int) -> None:
        self.delay_s = 0.0  # before each piece is passed on
        self.port = 0
        self._target = (host, port)
        self._open: set[trio.SocketStream] = set()
        self._flowing = trio.Event()
        self._flowing.set()

    async def run(self, *, task_status: trio.TaskStatus["Proxy"] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started(self)
        await trio.serve_listeners(self._forward, listeners)

    def freeze(self) -> None:
        """From now on nothing gets through, and nobody is told: a half-open link."""
        self._flowing = trio.Event()

    def thaw(self) -> None:
        self._flowing.set()

    async def cut(self) -> None:
        """End all connections."""
        for stream in list(self._open):
            await trio.aclose_forcefully(stream)

    async def _forward(self, near: trio.SocketStream) -> None:
        with suppress(OSError):
            far = await trio.open_tcp_stream(*self._target)
            self._open |= {near, far}
            try:
                async with trio.open_nursery() as nursery:
                    for source, sink in ((near, far), (far, near)):
                        nursery.start_soon(self._pump, source, sink, nursery.cancel_scope)
            finally:
                self._open -= {near, far}
                await trio.aclose_forcefully(far)
        await trio.aclose_forcefully(near)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._flowing.wait()
                if self.delay_s:
                    await trio.sleep(self.delay_s)
                await sink.send_all(data)
        both.cancel()
