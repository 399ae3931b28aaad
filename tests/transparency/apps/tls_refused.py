"""TLS connections that do not come about."""

from tls_client import connect
from transcript import show


def main(port, reset_port, ca, other_ca):
    show("wrong CA", connect, int(port), other_ca, "localhost")
    show("wrong name", connect, int(port), ca, "example.org")
    show("reset", connect, int(reset_port), ca, "localhost")
