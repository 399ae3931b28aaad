"""Figures of the messages: bytes a flow, and the heap that encoding and sending takes."""

from __future__ import annotations

from measures import Budget, Samples, device, measure


@measure(Budget("message.bytes_per_flow", "B", 48))
def bytes_per_flow() -> Samples:
    return {"message.bytes_per_flow": device("message_size.py", "size")["bytes"]}


@measure(Budget("message.encode_heap", "B", 6 * 1024))
def encode_heap() -> Samples:
    return {
        "message.encode_heap": device("message_size.py", "heap", lane="32", heap="400k")["heap"]
    }
