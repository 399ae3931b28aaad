"""The Device Provisioning Service: which hub a device belongs to.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps
"""

import asyncio
import json

from micropython import const

from .client import Credentials
from .decoding import decode
from .errors import HubError, cold
from .keys import decode_key, hmac_sha256, split_host
from .mqtt import PUBLISH, Session, due

_RESPONSES = "$dps/registrations/res/"
_REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=%d"
_POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=%d&operationId=%s"
_ANSWER_S = const(30)
_POLLS = const(40)
_RETRY_S = const(3)  # between polls, where the service does not say
_MAX_RETRY_S = const(30)


class Provisioning:
    """A device's registration: HubClient(None, ca, provisioning=Provisioning(...)).

    `scope` is the service's ID scope. One of: `key`, the device's own in base64; `group_key`, that
    of its enrolment group; `certificate`, as in Credentials. `store`, a path, remembers the
    assigned hub; the client registers again after a refusal or ten failures in a row.
    Errors: HubError "credentials".
    """

    policy = "registration"

    def __init__(
        self,
        scope,
        registration_id,
        key=None,
        group_key=None,
        certificate=None,
        host="global.azure-devices-provisioning.net",
        store=None,
    ):
        self.host, self.port = split_host(host)
        self.client_id = registration_id
        self.certificate = certificate
        self.resource = scope + "/registrations/" + registration_id
        self.user = self.resource + "/api-version=2019-03-31"
        self.key = decode_key(key) if key else None
        if group_key:
            self.key = hmac_sha256(decode_key(group_key), registration_id.encode())
        self._store = store
        self._try_known = True  # the hub that was assigned before, without asking
        self._session = None

    async def assign(self, client):
        """The Credentials for the device's hub: as remembered, or as the service says.

        The service is asked when the remembered hub did not do; when the service does not answer,
        the remembered hub has the next try. Errors: HubError.
        """
        if self._try_known:
            self._try_known = False
            known = self._remembered()
            if known:
                return known
        self._try_known = True
        self._session = Session(
            self._on_tick, self._on_response, client.stats, client.session.socket
        )
        self._assigned = None
        while not self._assigned:  # a clock that jumps ends a session
            await self._session.run(self, client.roots)
        self._try_known = False
        return self._assigned

    def _on_tick(self, new):
        if new:
            asyncio.create_task(self._register())

    async def _register(self):
        session = self._session
        try:
            await cold("connecting", "subscribe", session, [(_RESPONSES + "#", 0)])
            self._assigned = await self._poll(session)
            session.renew = True
        except Exception as e:
            session.fault = e

    async def _poll(self, session):
        body = json.dumps({"registrationId": self.client_id}).encode()
        operation = None
        for _ in range(_POLLS):
            number = session.number()
            if operation:
                topic, body = _POLL % (number, operation), b""
            else:
                topic = _REGISTER % number
            answer = await session.ask(number, due(_ANSWER_S), PUBLISH, (topic,), len(body), body)
            if answer is None:
                raise HubError("closed")
            status, answer, wait = answer
            state = answer.get("status")
            if status == 200 and state == "assigned":
                return self._accept(answer["registrationState"])
            if status not in (200, 202, 429) or state in ("failed", "disabled"):
                raise HubError("refused", "registration: %d %s" % (status, state or ""))
            operation = answer.get("operationId", operation)
            await asyncio.sleep(min(wait, _MAX_RETRY_S))
        raise HubError("timeout", "registration")

    def _on_response(self, topic, payload, _packet_id):
        status, _, query = topic[len(_RESPONSES) :].partition("/?")
        try:
            query = decode(query)
            answer = json.loads(payload) if payload else {}
            wait = int(query.get("retry-after", _RETRY_S))
            self._session.give(int(query["$rid"]), (int(status), answer, wait))
        except (KeyError, ValueError):
            raise HubError("protocol", "registration")

    def _accept(self, state):
        try:
            kept = {
                "registration": self.resource,
                "hub": state["assignedHub"],
                "device": state["deviceId"],
            }
            credentials = self._credentials(kept)
        except (KeyError, TypeError):
            raise HubError("protocol", "no hub is named")
        if self._store:
            try:
                with open(self._store, "w") as file:
                    json.dump(kept, file)
            except OSError:
                pass  # a full or read-only file system: it is asked again at the next start
        return credentials

    def _remembered(self):
        try:
            with open(self._store) as file:
                kept = json.load(file)
            if kept["registration"] == self.resource:
                return self._credentials(kept)
        except (OSError, ValueError, KeyError, TypeError, HubError):
            pass  # no store, none yet, or not whole: the service will say it again
        return None

    def _credentials(self, kept):
        host, port = split_host(kept["hub"])
        return Credentials(host, kept["device"], self.key, port=port, certificate=self.certificate)
