"""The Device Provisioning Service: which hub a device belongs to.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps
"""

import asyncio
import json
from time import ticks_add, ticks_ms

from micropython import const

from . import bag, clock
from .credentials import Credentials, decode_key, hmac_sha256, sas, split_host
from .errors import HubError
from .mqtt import Reply

_RESPONSES = "$dps/registrations/res/"
_REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=%d"
_POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=%d&operationId=%s"
_ANSWER_MS = const(30000)
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
        self.routes = ((_RESPONSES, 0, self._on_response),)
        self._registration = scope + "/registrations/" + registration_id
        self.user = self._registration + "/api-version=2019-03-31"
        self._key = decode_key(key) if key else None
        if group_key:
            self._key = hmac_sha256(decode_key(group_key), registration_id.encode())
        self._store = store
        self._rid = 0
        self._replies = None

    def password(self, lifetime):
        """As that of Credentials."""
        if self.certificate:
            return None
        return sas(self._registration, self._key, clock.unix() + lifetime, "registration")

    def remembered(self):
        """The Credentials of the last assignment, or None."""
        try:
            with open(self._store) as file:
                kept = json.load(file)
            if kept["registration"] == self._registration:
                return self._credentials(kept)
        except (OSError, ValueError, KeyError, TypeError, HubError):
            pass  # no store, none yet, or not whole: the service will say it again
        return None

    async def register(self, mqtt):
        """Asks the service, over a session with it; the Credentials for the assigned hub."""
        self._replies = mqtt.replies
        body = json.dumps({"registrationId": self.client_id}).encode()
        operation = None
        for _ in range(_POLLS):
            self._rid += 1
            topic = _POLL % (self._rid, operation) if operation else _REGISTER % self._rid
            status, answer, wait = await self._ask(mqtt, topic, b"" if operation else body)
            state = answer.get("status")
            if status == 200 and state == "assigned":
                return self._assigned(answer["registrationState"])
            if status not in (200, 202, 429) or state in ("failed", "disabled"):
                text = "the provisioning service assigns no hub (%d %s)" % (status, state or "")
                raise HubError("refused", text)
            operation = answer.get("operationId", operation)
            await asyncio.sleep(min(wait, _MAX_RETRY_S))
        raise HubError("timeout", "the provisioning service takes too long to assign a hub")

    async def _ask(self, mqtt, topic, body):
        reply = mqtt.replies[-self._rid] = Reply()
        reply.expect(ticks_add(ticks_ms(), _ANSWER_MS))
        try:
            await mqtt.publish(topic, body)
            return await reply.get()
        finally:
            del mqtt.replies[-self._rid]

    def _on_response(self, topic, payload, _packet_id):
        status, _, query = topic[len(_RESPONSES) :].partition("/?")
        query = bag.decode(query)
        reply = self._replies.get(-int(query["$rid"]))
        if reply:
            answer = json.loads(payload) if payload else {}
            reply.give((int(status), answer, int(query.get("retry-after", _RETRY_S))))

    def _assigned(self, state):
        try:
            kept = {
                "registration": self._registration,
                "hub": state["assignedHub"],
                "device": state["deviceId"],
            }
            credentials = self._credentials(kept)
        except (KeyError, TypeError):
            raise HubError("protocol", "the provisioning service names no hub")
        if self._store:
            try:
                with open(self._store, "w") as file:
                    json.dump(kept, file)
            except OSError:
                pass  # a full or read-only file system: it is asked again at the next start
        return credentials

    def _credentials(self, kept):
        host, port = split_host(kept["hub"])
        return Credentials(
            host, kept["device"], self._key, port=port, certificate=self.certificate
        )
