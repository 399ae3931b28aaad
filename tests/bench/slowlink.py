"""A TCP relay that stands for a slow network: it delays, stalls, and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Link:
    """Relays `port` on loopback to another; `delay` in seconds each way."""

    def __init__(self, target: int, delay: float) -> None:
        self.port = 0
        self._target = target
        self._delay = delay
        self._stalled = False
        self._writers: set[asyncio.StreamWriter] = set()

    def stall(self, stalled: bool) -> None:
        """While stalled, connections stay and nothing passes either way."""
        self._stalled = stalled

    def cut(self) -> None:
        """Close all connections."""
        self._loop.call_soon_threadsafe(lambda: [w.close() for w in list(self._writers)])

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        for writer in list(self._writers):
            writer.close()

    async def _accept(self, near: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection("127.0.0.1", self._target)
        with contextlib.suppress(asyncio.CancelledError):  # the link is being ended
            await asyncio.gather(self._pass(near, to_far), self._pass(far, out))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._writers.add(sink)
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                while self._stalled:
                    await asyncio.sleep(0.01)
                sink.write(data)
                if not data:
                    return

        task = asyncio.ensure_future(deliver())
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                queue.put_nowait((self._loop.time() + self._delay, data))
        queue.put_nowait((self._loop.time() + self._delay, b""))
        with contextlib.suppress(ConnectionError):
            await task
        sink.close()
        self._writers.discard(sink)


@contextlib.contextmanager
def slow_link(target: int, delay: float) -> Iterator[Link]:
    link = Link(target, delay)
    ready = threading.Event()
    stop = asyncio.Event()

    def run() -> None:
        asyncio.run(link.serve(ready, stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield link
    finally:
        link._loop.call_soon_threadsafe(stop.set)
        thread.join(10)
