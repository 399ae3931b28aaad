"""Microsoft's device SDK from its start until a first message is acknowledged.

Arguments: connection string, CA (PEM). Says `acknowledged`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from azure.iot.device import IoTHubDeviceClient

client = IoTHubDeviceClient.create_from_connection_string(
    sys.argv[1], server_verification_cert=Path(sys.argv[2]).read_text()
)
client.send_message("{}")
print("acknowledged", flush=True)
client.shutdown()
