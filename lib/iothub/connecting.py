"""How a connection begins. Loaded for each one."""

import errno
import gc
import os
import socket

import tls
from micropython import const

from .encoding import quote
from .errors import HubError
from .keys import token
from .mqtt import CONNECT, due
from .reasons import of

_SUBSCRIBE = const(0x82)
_ANSWER_S = const(30)
_MAX_DER = const(4096)  # bytes of a certificate or key
_TCP = const(6)
_NODELAY = const(1)


async def connect(session, identity, roots):
    """Opens the session's link, and asks the hub to accept `identity`. Errors: HubError."""
    link = session.sock
    await find(link, identity, session.socket or socket.socket, tls_context(roots, identity))
    user = identity.user
    if session.model_id:
        user += "&model-id=" + quote(session.model_id)
    password = token(identity, session.token_lifetime)
    flags = (0xC0 if password else 0x80) | session.clean_session << 1
    parts = [
        b"\0\x04MQTT\x04" + bytes((flags, session.keepalive >> 8, session.keepalive & 255)),
        identity.client_id,
        user,
    ]
    if password:
        parts.append(password)
    await session.write(CONNECT, parts)


async def subscribe(session, filters):
    """Subscribes to a list of (topic filter, QoS) in one packet. Errors: HubError."""
    number = session.number()
    parts = [number.to_bytes(2, "big")]
    for topic, qos in filters:
        parts.append(topic)
        parts.append(bytes((qos,)))
    answer = await session.ask(number, due(_ANSWER_S), _SUBSCRIBE, parts)
    if answer is None:
        raise HubError("closed")
    if answer > 2:
        raise HubError("refused", "a subscription")


def tls_context(roots, identity):
    """A context that trusts `roots` only, and shows the identity's certificate if it has one.

    All in DER form: bytes, or paths of files.
    """
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED
    code = "certificate"
    try:
        for source in roots:
            context.load_verify_locations(_der(source))
        code = "credentials"
        shown = []
        for source in identity.certificate or ():
            shown.append(_der(source))
        if shown:
            context.load_cert_chain(*shown)
    except ValueError:
        raise HubError(code, "not in DER form")
    except OSError:
        raise HubError(code, "cannot read " + source)
    return context


def _der(path):
    if not isinstance(path, str):
        return path
    size = os.stat(path)[6]  # a read takes as much heap as it might read
    with open(path, "rb") as file:
        return file.read(min(size, _MAX_DER))


async def find(link, identity, make, context):
    where = identity.host, identity.port
    if link.where != where:
        link.where, link.addresses = where, None
    try:
        # The only call that MicroPython cannot make without holding the loop: made once, and
        # again only when the hub was not reached at an address that it gave.
        addresses = link.addresses or socket.getaddrinfo(*where, 0, socket.SOCK_STREAM)
    except OSError:
        raise HubError("dns", identity.host)
    link.addresses = None
    # One that takes no connection, and does not refuse it, takes all the time that an attempt has.
    at = link.attempts % len(addresses)
    link.attempts += 1
    for address in addresses[at:]:
        try:
            await _open(link, address, make, context)
            link.addresses = [address]
            return
        except (OSError, MemoryError) as e:
            link.close()
            error = of(e, identity.host)
    raise error


async def _open(link, address, make, context):
    gc.collect()  # TLS asks for 16 KB in one piece
    sock = link.sock = make(address[0], address[1], address[2])
    sock.setblocking(False)
    try:
        sock.setsockopt(_TCP, _NODELAY, 1)
    except OSError:
        pass  # not every port has it
    try:
        sock.connect(address[-1])
    except OSError as e:
        if e.errno != errno.EINPROGRESS:
            raise
    await link.ready(True)
    sock.send(b"")  # raises when it was refused: there is no other way to ask
    # The handshake is made with the first write.
    link.tls = context.wrap_socket(
        sock, server_hostname=link.where[0], do_handshake_on_connect=False
    )
