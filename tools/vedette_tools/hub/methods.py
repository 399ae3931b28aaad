"""Direct methods: a request to a connected device, and its answer, within a time."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from vedette_tools.hub import strict_json
from vedette_tools.hub.device_api import MethodResult
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.sessions import Session

TOPIC_FILTER = "$iothub/methods/POST/#"
PAYLOAD_MAX = 128 * 1024
RESPONSE_TIMEOUT_S = 30
RESPONSE_TIMEOUT_MIN_S = 5
TIMEOUT_MAX_S = 300

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f/+#?]{1,100}")  # it is a level of the topic

Json = dict[str, Any]
Deliver = Callable[[str, str, bytes], None]  # client id, topic, payload


class Methods:
    def __init__(self, session_of: Callable[[Identity], Session | None], deliver: Deliver) -> None:
        self._session_of = session_of
        self._deliver = deliver
        self._numbers = itertools.count(1)
        self._waiting: dict[tuple[str, str], asyncio.Future[MethodResult]] = {}
        self._ready = asyncio.Condition()

    async def subscribed(self) -> None:
        """Some session has subscribed to methods."""
        async with self._ready:
            self._ready.notify_all()

    def answered(self, result: MethodResult) -> None:
        waiting = self._waiting.get((result.token, result.request_id))
        if waiting and not waiting.done():
            waiting.set_result(result)

    async def invoke(self, identity: Identity, request: Json) -> Json:
        """The device's `{"status": int, "payload": any}`. Errors: RequestError (404 offline, 504
        no answer in time)."""
        name = request.get("methodName")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RequestError(
                400, "methodName has to be 1 to 100 printable characters without / + # ?"
            )
        payload = json.dumps(request.get("payload"), separators=(",", ":")).encode()
        if len(payload) > PAYLOAD_MAX:
            raise RequestError(413, f"the payload has over {PAYLOAD_MAX} bytes")
        response_timeout = _seconds(
            request, "responseTimeoutInSeconds", RESPONSE_TIMEOUT_S, RESPONSE_TIMEOUT_MIN_S
        )
        session = await self._connected(identity, _seconds(request, "connectTimeoutInSeconds", 0))
        request_id = f"{next(self._numbers):x}"
        key = (session.token, request_id)
        self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            self._deliver(
                identity.client_id, f"$iothub/methods/POST/{name}/?$rid={request_id}", payload
            )
            result = await asyncio.wait_for(self._waiting[key], response_timeout)
        except TimeoutError:
            raise RequestError(
                504, f"{identity} did not answer {name} within {response_timeout} s"
            ) from None
        finally:
            del self._waiting[key]
        try:
            answer = strict_json.loads(result.payload) if result.payload else None
        except ValueError:
            raise RequestError(502, f"{identity} answered {name} with what is not JSON") from None
        return {"status": result.status, "payload": answer}

    async def _connected(self, identity: Identity, timeout: float) -> Session:
        def ready() -> Session | None:
            session = self._session_of(identity)
            return session if session and TOPIC_FILTER in session.subscriptions else None

        async with self._ready:
            try:
                await asyncio.wait_for(self._ready.wait_for(lambda: ready() is not None), timeout)
            except TimeoutError:
                pass
        session = ready()
        if session is None:
            raise RequestError(
                404,
                f"{identity} is not online: not connected, or not subscribed to methods",
                "`vedette device list` shows those that are connected",
            )
        return session


def _seconds(request: Json, name: str, default: float, least: int = 0) -> float:
    value = request.get(name)
    if value is None:
        return default
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not least <= value <= TIMEOUT_MAX_S
    ):
        raise RequestError(400, f"{name} has to be {least} to {TIMEOUT_MAX_S}")
    return value
