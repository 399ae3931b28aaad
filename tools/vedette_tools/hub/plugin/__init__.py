"""The broker's plugin: a C source, compiled where the hub runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from vedette_tools.hub.errors import HubStartError

SOURCE = Path(__file__).with_name("vedette_plugin.c")
FLAGS = ("-O2", "-Wall", "-Wextra", "-shared", "-fPIC")
LIBRARIES = ("-lssl", "-lcrypto")


def cache_directory() -> Path:
    """Where the compiled plugin is kept unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vedette"


def build(out_dir: Path) -> Path:
    """Compile the plugin into `out_dir`, unless this very source was compiled there before.

    Returns the shared object's path. Errors: HubStartError.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = out_dir / f"vedette_plugin-{digest}.so"
    if library.exists():
        return library
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise HubStartError("the broker's plugin needs a C compiler: install gcc")
    out_dir.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(unfinished), str(SOURCE), *LIBRARIES],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise HubStartError(
            "the broker's plugin does not compile (are mosquitto-dev, libmosquitto-dev and "
            f"libssl-dev installed?):\n{done.stderr}"
        )
    unfinished.replace(library)
    return library
