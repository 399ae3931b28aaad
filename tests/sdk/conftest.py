"""The hub that the SDKs are tested against. Device SDKs know no port but 8883, so it listens on a
loopback address that no other uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hubfixture import LocalHub

ADDRESS = "127.0.0.4"


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    hub = LocalHub(tmp_path_factory.mktemp("sdk") / "hub", listen=ADDRESS, ports=(8883, 0))
    hub.start()
    yield hub
    hub.stop()
