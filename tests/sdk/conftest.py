"""The hub that the SDKs are tested against. Device SDKs know no port but 8883, and
service SDKs none for AMQP but 5671, so it listens on a
loopback address that no other uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hubfixture import LocalHub

ADDRESS = "127.0.0.4"


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    state = tmp_path_factory.mktemp("sdk") / "hub"
    hub = LocalHub(state, listen=ADDRESS, ports=(8883, 0), amqps_port=5671)
    hub.start()
    yield hub
    hub.stop()
