"""Where sockets end, on Linux: addresses are `sockaddr` structures; the kernel knows local ends.

MicroPython has no getsockname. Where the port has `ffi`, libc's is called; elsewhere `unnamed`
asks the kernel.
"""

import socket

import micropython
from micropython import const

_SOCKADDR = const(28)  # struct sockaddr_in6
_GET_FILENO = const(10)  # py/stream.h

try:
    import ffi

    _getsockname = ffi.open("libc.so.6").func("i", "getsockname", "ipp")
except (ImportError, OSError):
    _getsockname = None


def decode(address):
    """(address as 4 or 16 bytes, port) of what `connect` takes and `accept` returns."""
    fields = socket.sockaddr(address)
    return fields[1], fields[2]


def numbered(number, sock):
    """What answers in the place of `sock.ioctl`, and at once, if it is asked for a file number."""
    general = type(sock).ioctl

    @micropython.viper
    def ioctl(request: int, argument):
        if request == _GET_FILENO:
            return number
        return general(sock, request, argument)

    return ioctl


def connect(sock, address, udp):
    """Connect a native socket; (OSError or None, the address, the local port or 0).

    The port is what the kernel was asked for: only `local_end` knows what it took.
    """
    if _getsockname:
        return attempt(sock, address), address, 0
    from nettap import unnamed

    return unnamed.connect(sock, address, udp)


def local_end(sock, udp, local, remote):
    """(address or None, port or 0) of the local end of a native socket, as far as can be told.

    `local` is what is known or expected of it. `remote` is the other end, None of a socket that
    listens or is bound.
    """
    if _getsockname:
        name = bytearray(_SOCKADDR)
        size = bytearray(_SOCKADDR.to_bytes(4, "little"))
        if _getsockname(sock.fileno(), name, size) == 0:
            local = known(*decode(name))
    else:
        from nettap import unnamed

        local = unnamed.local_end(sock, udp, local, remote)
    if udp and remote and not local[0]:
        local = source(remote), local[1]
    return local


def attempt(sock, address):
    """Connect a native socket; OSError or None."""
    try:
        sock.connect(address)
    except OSError as error:
        return error


def known(address, port):
    """What an end tells: the address, None for a wildcard, and the port."""
    return address if any(address) else None, port


def source(remote):
    """The address that datagrams to there go from. Nothing is sent: a socket is connected only."""
    probe = socket.socket(socket.sockaddr(remote)[0], socket.SOCK_DGRAM)
    try:
        return None if attempt(probe, remote) else local_end(probe, True, (None, 0), None)[0]
    finally:
        probe.close()
