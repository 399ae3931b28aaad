"""Microsoft's Node SDKs against the local hub: `make test-sdk`. The tests are node_sdk.test.js."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import certificates
import pytest
from hubfixture import LocalHub

pytest.importorskip("azure.iot.device")  # make test-sdk installs both

pytestmark = pytest.mark.slow

TESTS = Path(__file__).with_name("node_sdk.test.js")
PACKAGES = Path(__file__).parents[2] / "build" / "sdk-node" / "node_modules"
LIMIT_S = 60


def test_node_sdk(hub: LocalHub, tmp_path: Path) -> None:
    device = certificates.make(tmp_path, "n-13")
    environment = {
        **os.environ,
        "NODE_PATH": str(PACKAGES),
        "NODE_EXTRA_CA_CERTS": str(hub.ca),
        "VEDETTE_HUB_CONNECTION": json.dumps(hub.connection),
        "DEVICE_CERTIFICATE": str(device.certificate),
        "DEVICE_KEY": str(device.key),
    }
    done = subprocess.run(
        ["node", "--test", f"--test-timeout={LIMIT_S * 1000}", "--test-reporter=tap", str(TESTS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S + 10,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    passed = re.search(r"^# pass (\d+)$", done.stdout, re.M)
    assert passed and int(passed[1]) >= len(re.findall(r"^\s*test\(", TESTS.read_text(), re.M))
