"""X.509 certificates for tests, made by the openssl command."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """Files in PEM form, each with its DER form beside it (suffix `.der`)."""

    certificate: Path
    key: Path

    @property
    def der(self) -> tuple[Path, Path]:
        return self.certificate.with_suffix(".der"), self.key.with_suffix(".der")


def make(
    folder: Path,
    name: str,
    signer: Certificate | None = None,
    *,
    authority: bool = False,
    days: int = 2,
) -> Certificate:
    """A certificate for `name`, by itself or by `signer`, in a new directory in `folder`; with
    `days` under 0 it has expired."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    made = Certificate(folder / f"{name}.pem", folder / f"{name}-key.pem")
    request = folder / f"{name}.csr"
    _openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
             "-keyout", made.key, "-out", request)  # fmt: skip
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"basicConstraints=critical,CA:{str(authority).upper()}\n")
    signing = (
        ["-CA", signer.certificate, "-CAkey", signer.key, "-CAcreateserial"]
        if signer
        else ["-signkey", made.key]
    )
    _openssl("x509", "-req", "-in", request, "-days", days, "-extfile", extensions,
             "-out", made.certificate, *signing)  # fmt: skip
    certificate, key = made.der
    _openssl("x509", "-in", made.certificate, "-outform", "der", "-out", certificate)
    _openssl("rsa", "-in", made.key, "-outform", "der", "-traditional", "-out", key)
    return made


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
