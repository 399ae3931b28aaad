"""A new root certificate through the twin: tried, and kept only if the hub is reached with it."""

import asyncio
import binascii
import os

from micropython import const

from .errors import HubError

_TRIAL_S = const(200)  # more than the longest back-off and a connect
_MAX_TEXT = const(4096)  # the hub's limit for a string in a twin


class Roots:
    """Listens to the desired property `key`, a root certificate (base64 of its DER form).

    A root that the hub can be reached with is kept at `path`, and trusted beside those the client
    was made with. One that it cannot be reached with waits at `path` + ".new" and is tried again
    whenever the hub's certificate is refused. Reported under the same key: "kept", "waiting" or
    "malformed".
    """

    def __init__(self, client, path, key="hubRoot"):
        self._client = client
        self._given = list(client.roots)
        self._path = path
        self._candidate = path + ".new"
        self._key = key
        self._task = None
        client.roots = self._trusted()
        client.on_desired(self._on_desired)
        client.on_connection(self._on_connection)

    def _trusted(self):
        return self._given + [self._path] if _exists(self._path) else self._given

    def _on_desired(self, desired, _version, _full):
        text = desired.get(self._key)
        if text is None:
            return
        try:
            root = binascii.a2b_base64(text) if len(text) <= _MAX_TEXT else b""
        except (TypeError, ValueError):
            root = b""
        if root[:1] != b"\x30":  # an ASN.1 sequence, as each certificate is
            asyncio.create_task(self._report("malformed"))
        elif root not in (_read(self._path), _read(self._candidate)):
            with open(self._candidate, "wb") as file:
                file.write(root)
            self._try()

    def _on_connection(self, connected, reason):
        if not connected and reason.code == "certificate" and _exists(self._candidate):
            self._try()

    def _try(self):
        if not self._task or self._task.done():
            self._task = asyncio.create_task(self._trial())

    async def _trial(self):
        client = self._client
        connects = client.stats["connects"]
        failures = client.stats["failures"]
        client.roots = [self._candidate]
        client.reconnect()
        for _ in range(_TRIAL_S):
            await asyncio.sleep(1)
            if client.stats["connects"] > connects or client.stats["failures"] > failures:
                break
        kept = client.stats["connects"] > connects
        if kept:
            os.rename(self._candidate, self._path)
        client.roots = self._trusted()
        await self._report("kept" if kept else "waiting")

    async def _report(self, state):
        try:
            await self._client.wait_connected(_TRIAL_S)
            await self._client.report({self._key: state})
        except HubError:
            pass  # it is said again at the next change


def _exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
