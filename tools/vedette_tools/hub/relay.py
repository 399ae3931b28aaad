"""A bad network between devices and the broker: a TCP relay that delays.

TCP hides loss: what the two ends see of a lost segment is that it, and all after it, comes later
by the time that a retransmission takes. So that is what this does.
"""

from __future__ import annotations

import asyncio
import random

RETRANSMISSION_S = 0.2  # Linux's shortest time-out; it doubles with each further loss
CHUNK_BYTES = 1 << 16
QUEUE_CHUNKS = 64
LOSS_MAX = 0.9

Due = asyncio.Queue[tuple[float, bytes]]  # loop time, chunk


class Relay:
    def __init__(self, target: tuple[str, int], latency_s: float, loss: float) -> None:
        """`latency_s` is added in each direction; `loss` is the part of segments lost, 0 to 1."""
        self._target = target
        self._latency_s = latency_s
        self._loss = loss
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, address: str, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, address, port)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            onward_reader, onward = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, onward)),
            asyncio.create_task(self._pump(onward_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            onward.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, each chunk when it is due; ends when either side does."""
        due: Due = asyncio.Queue(QUEUE_CHUNKS)
        reading = asyncio.create_task(self._read(reader, due))
        loop = asyncio.get_running_loop()
        try:
            while True:
                when, chunk = await due.get()
                await asyncio.sleep(when - loop.time())
                if not chunk:
                    return
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            reading.cancel()

    async def _read(self, reader: asyncio.StreamReader, due: Due) -> None:
        """Put what comes, with the time at which it is due; an empty chunk is the end."""
        loop = asyncio.get_running_loop()
        last = 0.0
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except ConnectionError:
                chunk = b""
            last = max(last, loop.time() + self._delay())
            await due.put((last, chunk))

    def _delay(self) -> float:
        delay, retransmission = self._latency_s, RETRANSMISSION_S
        while random.random() < self._loss:
            delay += retransmission
            retransmission *= 2
        return delay
