"""The devices' connections: who is admitted, until when, and what each has subscribed to."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from vedette_tools.hub import sas
from vedette_tools.hub.device_certificates import Authorities, check_thumbprint
from vedette_tools.hub.errors import Refused
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.plugin_socket import ConnectRequest
from vedette_tools.hub.registry import CA_SIGNED, SELF_SIGNED, Registry

log = logging.getLogger("vedette.hub.sessions")

Subscriptions = dict[str, int]  # topic filter -> QoS granted


@dataclass
class Session:
    identity: Identity
    expiry: float  # seconds since 1970; inf with a certificate
    clean: bool
    has_api_version: bool
    subscriptions: Subscriptions
    token: str = field(init=False)
    timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        # The first letter tells a reader of the spool, which may be a later hub, what it has to
        # know of the session.
        self.token = ("c" if self.clean else "p") + secrets.token_hex(8)

    @property
    def name(self) -> str:
        """What the broker has as the client's user name."""
        return f"{self.token} {self.identity.path}"


class Sessions:
    def __init__(
        self,
        registry: Registry,
        authorities: Authorities,
        kick: Callable[[Session], None],
        forget: Callable[[Identity], None],
        quota_used_up: Callable[[], bool],
    ) -> None:
        """`kick` is to close a session, `forget` to delete an identity's subscriptions."""
        self.by_token: dict[str, Session] = {}
        self.remembered: dict[Identity, Subscriptions] = {}
        self.grace_s = 0.0  # how long a connection outlives its token
        self._of: dict[Identity, Session] = {}
        self._registry = registry
        self._authorities = authorities
        self._kick = kick
        self._forget = forget
        self._quota_used_up = quota_used_up

    def remember(self, subscriptions: Callable[[], Iterable[tuple[Identity, str, int]]]) -> None:
        """Take over the subscriptions of persistent sessions from an earlier run."""
        for identity, topic_filter, qos in subscriptions():
            self.remembered.setdefault(identity, {})[topic_filter] = qos

    def of(self, identity: Identity) -> Session | None:
        return self._of.get(identity)

    def devices(self) -> int:
        """How many devices are connected; their modules are not counted."""
        return sum(not identity.module for identity in self._of)

    def admit(self, request: ConnectRequest) -> Session | None:
        """A new session, or None to refuse."""
        try:
            session = self._open(request)
        except (Refused, sas.SasError) as reason:
            log.warning("%s refused: %s", request.client_id, reason)
            return None
        log.info("%s connected", session.identity)
        return session

    def close(self, token: str) -> None:
        session = self.by_token.pop(token, None)
        if session is None:
            return
        if session.timer:
            session.timer.cancel()
        if self._of.get(session.identity) is session:
            del self._of[session.identity]
            log.info("%s disconnected", session.identity)

    def close_all(self) -> None:
        for token in list(self.by_token):
            self.close(token)

    def kick_all(self) -> None:
        for session in self.by_token.values():
            self._kick(session)

    def _open(self, request: ConnectRequest) -> Session:
        if self._quota_used_up():
            raise Refused("the day's quota is used up")
        identity, query = _parse_username(request.username)
        if request.client_id != identity.client_id:
            raise Refused("the client id is not the one in the user name")
        expiry = self._authenticate(identity, request)
        if request.clean and identity in self.remembered:
            del self.remembered[identity]
            self._forget(identity)
        session = Session(
            identity=identity,
            expiry=expiry,
            clean=request.clean,
            has_api_version="api-version" in query,
            # A persistent session's subscriptions are the hub's to keep: clients do not subscribe
            # again, and the broker forgets them when it is restarted.
            subscriptions={} if request.clean else self.remembered.setdefault(identity, {}),
        )
        self.by_token[session.token] = session
        self._of[identity] = session
        self._watch_expiry(session)
        return session

    def _authenticate(self, identity: Identity, request: ConnectRequest) -> float:
        """When the connection has to end. Errors: Refused, SasError."""
        authentication = self._registry.authentication_of(identity)
        if authentication is None:
            raise Refused("no such identity, or it is disabled")
        if authentication["type"] == SELF_SIGNED:
            check_thumbprint(request.certificate, authentication["x509Thumbprint"])
            return math.inf
        if authentication["type"] == CA_SIGNED:
            self._authorities.check(request.certificate, identity.client_id)
            return math.inf
        token = sas.Token.parse(request.password)
        if token.expiry <= time.time():
            raise Refused(f"the token ran out {int(time.time() - token.expiry)} s ago")
        if not token.covers(identity.path):
            raise Refused(f"the token is for {token.resource!r}, not for this identity")
        keys = authentication["symmetricKey"].values()
        if not any([token.signed_with(key) for key in keys]):
            raise Refused("the token is signed with another key")
        return token.expiry

    def _watch_expiry(self, session: Session) -> None:
        """Close the connection at its token's end, as late as is then allowed."""
        if session.expiry == math.inf:
            return
        left = session.expiry + self.grace_s - time.time()
        if left <= 0:
            log.info("%s: the token ran out", session.identity)
            self._kick(session)
            return
        session.timer = asyncio.get_running_loop().call_later(left, self._watch_expiry, session)


def _parse_username(username: str) -> tuple[Identity, dict[str, list[str]]]:
    """`{hub}/{device}[/{module}]/?api-version=...`. Errors: Refused."""
    path, _, query = username.partition("/?")
    parts = path.rstrip("/").split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise Refused("the user name is not {hub}/{device}[/{module}]/?api-version=2021-04-12")
    return Identity(*parts[1:]), parse_qs(query)
