"""Checks of what a board runs: its firmware, and the files that were deployed."""

import hashlib
import os
from binascii import hexlify

import vedette

from . import listed

CHECKS = """
MPY-*
Firmware-1.1|Medium|version 1.26|MicroPython is a version that is looked after|Flash the latest release
Firmware-1.2|High|fixed 1.22:CVE-2023-7158 1.23:CVE-2024-8947 1.24:CVE-2024-8948 1.28:CVE-2026-1998|MicroPython has no known vulnerability|Flash the version named or a later one
Firmware-1.3|Low|release|MicroPython is a release|Flash a release, not a preview
Firmware-1.4|High|deployed|Files are as they were deployed|Find out who changed them, and deploy again
Firmware-1.5|Medium|added|No code was added since the deployment|Remove it, or deploy it
Firmware-1.6|Medium|place|The agent runs from where it was deployed to|Remove the copy that hides it, or deploy again
"""  # noqa: E501


def _number(text):
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def check_version(facts, limit):
    version = facts.version()
    return "" if tuple(version[:2]) >= _number(limit) else "%d.%d.%d" % tuple(version[:3])


def check_fixed(facts, *names):
    """Each of `names` is a version of MicroPython and what it has repaired, as "1.22:CVE-…"."""
    version = tuple(facts.version()[:2])
    fixes = [name.split(":") for name in names]
    return listed([name + " until " + fix for fix, name in fixes if version < _number(fix)])


def check_release(facts):
    return facts.version()[3]


def check_deployed(facts):
    changed = []
    for digest, path in facts.deployed():
        content = hashlib.sha256()
        try:
            for piece in facts.pieces(path):
                content.update(piece)
                yield
        except OSError as error:
            if error.errno != 2:  # ENOENT: it was removed
                raise
        if hexlify(content.digest()).decode() != digest:
            changed.append(path)
    return listed(changed)


def check_added(facts):
    """Passes without others, but for the version before, which `vedette deploy` keeps."""
    known = {path for _, path in facts.deployed()}
    in_force = {path.partition("/")[0] for path in known}
    yield
    added = []
    for path in facts.files(True):
        top = path.partition("/")[0]
        if path not in known and (top in in_force or top not in ("v-a", "v-b")):
            added.append(path)
        yield
    return listed(added)


def check_place(facts):
    """Passes for code that cannot be written, and for files that were deployed."""
    path = vedette.__file__
    if path.startswith("/rom") or not facts.exists(path):  # frozen code has a path but no file
        return ""
    if facts.exists("/rom/vedette"):
        return path + " hides the code in ROMFS"
    root = os.getcwd().rstrip("/") + "/"
    for _, name in facts.deployed():
        if path in (name, root + name):
            return ""
    return path + " was not deployed"
