"""What the suites that run the whole agent share."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hubfixture import LocalHub


@contextmanager
def running_hub(
    folder: Path, *, listen: str = "127.0.0.1", ports: tuple[int, int] = (0, 0)
) -> Iterator[LocalHub]:
    hub = LocalHub(folder / "hub", listen=listen, ports=ports)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


def der(pem: Path, folder: Path) -> Path:
    """A certificate as the DER file that MicroPython takes."""
    path = folder / "ca.der"
    path.write_bytes(ssl.PEM_cert_to_DER_cert(pem.read_text()))
    return path
