"""UDP with an echo server: unconnected, connected, and as a server itself."""

import socket

from transcript import show


def main(port, own_port):
    there = socket.getaddrinfo("127.0.0.1", int(port))[0][-1]
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    for data in (b"one", b"two-two", b"", bytes(1000)):
        show("sendto", s.sendto, data, there)
        show("peek", lambda: s.recvfrom(2000, socket.MSG_PEEK)[0])
        got, sender = s.recvfrom(2000)
        print(got, sender == bytes(there))
    show("bad sendto", s.sendto, 5, there)
    s.settimeout(0.05)
    show("late", s.recvfrom, 10)
    s.close()
    c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    c.settimeout(5)
    show("connect", c.connect, there)
    for data in (b"abc", b"defgh"):
        show("send", c.send, data)
        show("recv", c.recv, 100)
    show("write", c.write, b"written")
    show("readinto", c.readinto, bytearray(7))
    c.close()
    here = socket.getaddrinfo("127.0.0.1", int(own_port))[0][-1]
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(here)
    server.settimeout(5)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(5)
    for _ in range(3):
        client.sendto(b"question", here)
        question, sender = server.recvfrom(100)
        show("answer", server.sendto, question * 2, sender)
        show("answered", lambda: client.recvfrom(100)[0])
    client.close()
    server.close()
