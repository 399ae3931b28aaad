"""What went over the loopback interface, by tcpdump."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
NAMES = {ICMP: "ICMP", ICMPV6: "ICMP", TCP: "TCP", UDP: "UDP"}
FILE_HEADER = 24
RECORD_HEADER = 16
ETHERNET = 14
HEAD = "128"  # bytes of a packet that are kept
WRITTEN_S = 5.0


class Ends(NamedTuple):
    """A flow as one of its ends has it."""

    protocol: str
    local: str
    local_port: int
    remote: str
    remote_port: int

    def reversed(self) -> Ends:
        return Ends(self.protocol, *self[3:], *self[1:3])


class Count(NamedTuple):
    bytes_in: int
    bytes_out: int
    messages: int  # 0 of TCP, which is a stream


class Capture:
    """Errors: PermissionError."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._process = subprocess.Popen(
            [
                "tcpdump",
                "-i",
                "lo",
                "-s",
                HEAD,
                "--immediate-mode",
                "-U",
                "-Z",
                "root",
                "-w",
                file,
            ],
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr
        said = self._process.stderr.readline().decode()
        if "listening on lo" not in said:
            self._process.communicate(timeout=10)
            raise PermissionError(said.strip())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> dict[Ends, Count]:
        """What was counted at each end: of TCP and UDP payload, of ICMP the whole messages."""
        with socket.socket(type=socket.SOCK_DGRAM) as last:
            last.sendto(b"the end", ("127.0.0.1", 9))
            port = last.getsockname()[1]
            deadline = time.monotonic() + WRITTEN_S
            while not any(ends.local_port == port for ends in totals(self.file.read_bytes())):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        self._process.terminate()
        _, said = self._process.communicate(timeout=10)
        assert b"\n0 packets dropped by kernel" in said, said
        return totals(self.file.read_bytes())


def totals(pcap: bytes) -> dict[Ends, Count]:
    found: dict[Ends, list[int]] = defaultdict(lambda: [0, 0, 0])
    segments = set()
    at = FILE_HEADER
    while at < len(pcap):
        (size,) = struct.unpack_from("<I", pcap, at + 8)
        at += RECORD_HEADER
        packet = pcap[at + ETHERNET : at + size]
        at += size
        ends, length, sequence = sent(packet)
        if ends.protocol == "TCP" and (ends, sequence, length) in segments:
            continue  # sent again
        segments.add((ends, sequence, length))
        for end, way in ((ends, 1), (ends.reversed(), 0)):
            found[end][way] += length
            found[end][2] += ends.protocol != "TCP"
    return {ends: Count(*count) for ends, count in found.items()}


def sent(packet: bytes) -> tuple[Ends, int, int]:
    """The ends as the sender has them, the bytes of payload, and TCP's sequence number."""
    if packet[0] >> 4 == 4:
        family, start, protocol = socket.AF_INET, (packet[0] & 15) * 4, packet[9]
        end = int.from_bytes(packet[2:4], "big")
        source, target = packet[12:16], packet[16:20]
    else:
        family, start, protocol = socket.AF_INET6, 40, packet[6]
        end = 40 + int.from_bytes(packet[4:6], "big")
        source, target = packet[8:24], packet[24:40]
    ports, sequence = (0, 0), 0
    if protocol == TCP:
        *ports, sequence = struct.unpack_from(">HHI", packet, start)
        start += (packet[start + 12] >> 4) * 4
    elif protocol == UDP:
        ports = struct.unpack_from(">HH", packet, start)
        start += 8
    texts = [socket.inet_ntop(family, address) for address in (source, target)]
    ends = Ends(NAMES[protocol], texts[0], ports[0], texts[1], ports[1])
    return ends, end - start, sequence
