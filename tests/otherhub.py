"""The fixture `other_hub`: the service API of a hub that is not the local one, beside it: as
Azure's, it knows no device, and answers what it does not know 404."""

from __future__ import annotations

import http.server
import json
import re
import ssl
import threading
from collections.abc import Iterator

import pytest
from hubfixture import LocalHub

ANSWER = {
    "Message": "ErrorCode:DeviceNotFound;There is no such device",
    "ExceptionMessage": "Tracking ID:0123-G:7-TimeStamp:10/24/2026 12:00:00",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other_hub(hub: LocalHub) -> Iterator[str]:
    """Its connection string, with the key of the local hub; it trusts the same authority."""
    server = http.server.HTTPServer((hub.connection["mqtt_host"], 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(hub.state / "server.pem", hub.state / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    port = server.server_address[1]
    yield re.sub(r":\d+;", f":{port};", hub.connection["service_connection_string"], count=1)
    server.shutdown()
    thread.join()
    server.server_close()
