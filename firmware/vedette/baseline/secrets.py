"""Checks for secrets that whoever holds the board can read from its files."""

from . import listed

CHECKS = """
MPY-*
Secrets-4.1|High|key SharedAccessKey=|No hub key is in a plain file|Use vedette provision, which keeps it in NVS, or encrypt the flash
Secrets-4.2|High|key PRIVATE_KEY-----|No private key is in a plain file|Encrypt the flash
Secrets-4.3|Medium|wifi_password|No Wi-Fi password is in a plain file|Use vedette provision, which keeps it in NVS, or encrypt the flash
"""  # noqa: E501


def _check_key(facts, name):
    """`name` is what stands before a key; "_" goes for a space."""
    name = name.replace("_", " ").encode()
    return listed((yield from facts.holding(name, True)))


def check_wifi_password(facts):
    network = facts.config().get("network") or {}
    password = network.get("password") or {}  # {"nvs": name}: it is not in the file
    return "" if isinstance(password, dict) else "config.json"
