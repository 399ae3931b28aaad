"""What the module and a socket offer."""

import socket

from transcript import show

_METHODS = (
    "accept bind close connect fileno listen makefile read readinto readline recv recv_into"
    " recvfrom send sendall sendto setblocking setsockopt settimeout write __enter__ shutdown"
)


def main():
    names = [name for name in dir(socket) if not name.startswith("__")]
    print([(name, getattr(socket, name)) for name in names if name.isupper()])
    print(sorted(names), socket.__name__)
    everything = {}
    exec("from socket import *", everything)
    print(sorted(name for name in everything if not name.startswith("__")))
    s = socket.socket()
    print(isinstance(s, socket.socket), repr(s)[:8], [hasattr(s, n) for n in _METHODS.split()])
    s.close()
    print(socket.getaddrinfo("127.0.0.1", 80, socket.AF_INET, socket.SOCK_STREAM))
    print(socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, "10.1.2.3")))
    show("unknown family", socket.socket, 250)
    a = show("unix", socket.socket, socket.AF_UNIX)
    show("unix connect", a.connect, b"\x01\x00/nowhere")
    a.close()
