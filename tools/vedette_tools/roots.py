"""The root certificates that a device is given: DER, which every MicroPython port takes."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

from vedette_tools.connection import state_directory
from vedette_tools.errors import CommandError, reason

CERTIFICATE = re.compile(r"-+BEGIN CERTIFICATE-+.*?-+END CERTIFICATE-+", re.DOTALL)


def der_files(source: Path | None = None) -> dict[str, bytes]:
    """The certificates of a PEM file, by the names they get on a board; by default the hub's.

    Errors: CommandError.
    """
    named = os.environ.get("VEDETTE_HUB_CA")
    other = os.environ.get("VEDETTE_HUB") or os.environ.get("VEDETTE_HUB_FILE")
    if other and not (source or named):
        # This machine trusts a public authority by itself, a board does not.
        raise CommandError(
            "it is not said which roots the board is to have",
            why="the hub is not the local one",
            next_step="set VEDETTE_HUB_CA to a file in PEM form with the hub's",
        )
    path = source or Path(named or state_directory() / "ca.pem")
    try:
        found = CERTIFICATE.findall(path.read_text())
        contents = [ssl.PEM_cert_to_DER_cert(each) for each in found]
    except (OSError, ValueError) as error:
        raise CommandError(
            f"cannot read the hub's CA certificate {path}",
            why=reason(error),
            next_step="set VEDETTE_HUB_CA to a file in PEM form",
        ) from None
    if not contents:
        raise CommandError(f"{path} holds no certificate in PEM form")
    return {f"ca{number}.der": content for number, content in enumerate(contents)}
