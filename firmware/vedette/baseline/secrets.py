"""Checks for secrets that whoever holds the board can read from its files."""

from . import listed

CHECKS = """
MPY-*
Secrets-4.1|High|key SharedAccessKey=|No hub key is in a plain file|Use vedette provision, which keeps it in NVS, or encrypt the flash
Secrets-4.2|High|private PRIVATE_KEY-----|No private key is in a plain file|Use vedette provision, which keeps it in NVS, or encrypt the flash
Secrets-4.3|Medium|config network.password|No Wi-Fi password is in a plain file|Use vedette provision, which keeps it in NVS, or encrypt the flash
Secrets-4.4|High|config provisioning.key|No provisioning key is in a plain file|Use vedette provision, which keeps it in NVS, or encrypt the flash
"""  # noqa: E501


def _check_key(facts, name):
    """`name` is what stands before a key; "_" goes for a space."""
    name = name.replace("_", " ").encode()
    return listed((yield from facts.holding(name, True)))


def _check_private(facts, name):
    found = yield from _check_key(facts, name)
    pair = facts.config().get("certificate") or ("", {})  # or its key is in DER form
    return found or ("" if isinstance(pair[1], dict) else pair[1])


def _check_config(facts, name):
    table, key = name.split(".")
    secret = (facts.config().get(table) or {}).get(key) or {}  # {"nvs": name}: not in the file
    return "" if isinstance(secret, dict) else "config.json"
