"""Figures of the messages: bytes a flow, and the heap that encoding and sending takes."""

from __future__ import annotations

from measures import LANES, Budget, Samples, device, measure
from vedette_tools import mpy


@measure(Budget("message.bytes_per_flow", "B", 48))
def bytes_per_flow() -> Samples:
    return {"message.bytes_per_flow": sizes("size", "64")["bytes"]}


@measure(Budget("message.encode_heap", "B", 6 * 1024))
def encode_heap() -> Samples:
    return {"message.encode_heap": sizes("heap", "32", "512k")["heap"]}


def sizes(what: str, lane: str, heap: str = "") -> Samples:
    """What message_size.py says of "size" or "heap"."""
    image = mpy.romfs(mpy.architecture(LANES[lane]))
    return device("message_size.py", what, str(image), lane=lane, heap=heap)
