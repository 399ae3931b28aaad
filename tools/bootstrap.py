#!/usr/bin/env python3
"""Set up all that Vedette needs to run and be tested: `make setup`. Standard library only.

Everything lands in `.venv/` and `build/`; each step leaves a stamp, so that a second run takes
well under a second. Downloads come from the Python package index and, for Debian packages, from
the machine's own package sources; each is checked against a hash or a signature.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BUILD = ROOT / "build"
REQUIREMENTS = ROOT / "tools" / "requirements.txt"
LOG = BUILD / "setup.log"

UMQTT = "micropython-umqtt.simple==1.3.4"
UMQTT_SHA256 = "b6a2520239e3992c63a7de9370ee9b3d9d27819a90359c521f1c0f7ccab8d12f"

# What has to exist -> the Debian package that brings it.
DEBIAN_PACKAGES: dict[str, tuple[str, Callable[[], object]]] = {
    "mosquitto": ("mosquitto", lambda: shutil.which("mosquitto", path=_search_path())),
    "mosquitto_plugin.h": (
        "mosquitto-dev",
        lambda: Path("/usr/include/mosquitto_plugin.h").exists(),
    ),
    "mosquitto.h": ("libmosquitto-dev", lambda: Path("/usr/include/mosquitto.h").exists()),
    "openssl/ssl.h": ("libssl-dev", lambda: Path("/usr/include/openssl/ssl.h").exists()),
    "cc": ("gcc", lambda: shutil.which("cc")),
    "stdio.h": ("libc6-dev", lambda: Path("/usr/include/stdio.h").exists()),
    "ensurepip": (
        "python3-venv",
        lambda: (VENV / "bin" / "pip").exists() or _imports("ensurepip"),
    ),
}

# The 32-bit lane: Debian's own build, run through its own loader (no multiarch needed).
MPY32_SUITES = ("trixie", "forky", "sid")
MPY32_PACKAGES = (
    "micropython",
    "libc6",
    "libffi8",
    "libmbedcrypto16",
    "libmbedtls21",
    "libmbedx509-7",
)


class SetupError(Exception):
    """What went wrong and what to do, in words for the person who typed `make`."""


def _search_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


def _imports(module: str) -> bool:
    return (
        subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode
        == 0
    )


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a command, its output in the log. Errors: SetupError with the log's last lines."""
    words = [str(word) for word in command]
    with LOG.open("a") as log:
        log.write(f"\n$ {shlex.join(words)}\n")
        log.flush()
        done = subprocess.run(
            words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=cwd
        )
    if done.returncode:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])
        raise SetupError(f"`{shlex.join(words)}` failed. The end of {LOG}:\n{tail}")


def once(name: str, key: str, make: Callable[[], None], *products: Path) -> None:
    """Call `make` unless it was done for the same `key` and its products are there."""
    stamp = BUILD / "stamps" / name
    if stamp.exists() and stamp.read_text() == key and all(p.exists() for p in products):
        return
    make()
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)


def digest(*paths: Path) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def system_packages() -> None:
    missing = [package for package, there in DEBIAN_PACKAGES.values() if not there()]
    if not missing:
        return
    if platform.system() == "Darwin":
        raise SetupError("the broker is missing. Type: brew install mosquitto")
    if not shutil.which("apt-get"):
        raise SetupError(
            "missing: "
            + ", ".join(missing)
            + " (Debian's names). Install them with your system's "
            "package manager, then type the command again."
        )
    if os.geteuid() != 0:
        raise SetupError(
            "some Debian packages are missing. Type:\n  sudo apt-get install -y "
            + " ".join(missing)
        )
    say("installing Debian packages: " + " ".join(missing))
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", env=env)
    run("apt-get", "install", "-y", "--no-install-recommends", *missing, env=env)


def python_environment() -> None:
    def make() -> None:
        say("creating the virtual environment and installing pinned packages (a minute or two)")
        if not (VENV / "bin" / "python").exists():
            run(sys.executable, "-m", "venv", VENV)
        pip = (
            VENV / "bin" / "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "-q",
        )
        run(*pip, "--require-hashes", "-r", REQUIREMENTS)
        run(*pip, "--no-deps", "--no-build-isolation", "-e", ROOT)

    key = digest(REQUIREMENTS, ROOT / "pyproject.toml") + sys.version + str(ROOT)
    once("venv", key, make, VENV / "bin" / "vedette", VENV / "bin" / "micropython")


def umqtt() -> None:
    def make() -> None:
        say(f"fetching {UMQTT}")
        fetched = BUILD / "download"
        run(VENV / "bin" / "unearth", UMQTT, "--no-binary", "-d", fetched)
        (archive,) = fetched.glob("micropython-umqtt.simple-*.tar.gz")
        if digest(archive) != UMQTT_SHA256:
            archive.unlink()
            raise SetupError(f"{archive.name} is not the archive we know (SHA-256 differs)")
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith("/umqtt/simple.py"):
                    content = tar.extractfile(member)
                    assert content is not None
                    (target / "simple.py").write_bytes(content.read())

    target = BUILD / "umqtt" / "umqtt"
    once("umqtt", UMQTT_SHA256, make, target / "simple.py")


def broker_plugin() -> None:
    code = "from vedette_tools.hub import plugin; plugin.build(plugin.cache_directory())"
    run(VENV / "bin" / "python", "-c", code)


def debian_mirror() -> str:
    """The mirror that this machine's own package sources name."""
    folder = Path("/etc/apt")
    for source in [
        *folder.glob("sources.list.d/*.sources"),
        folder / "sources.list",
        *folder.glob("sources.list.d/*.list"),
    ]:
        if not source.exists():
            continue
        for line in source.read_text().splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["URIs:"] or words[:1] == ["deb"]:
                for word in words[1:]:
                    if word.startswith("http") and word.rstrip("/").endswith("/debian"):
                        return word.rstrip("/")
    raise SetupError("no Debian mirror found in this machine's package sources")


def micropython_32() -> None:
    """A 32-bit MicroPython in build/mpy32, from the first Debian suite whose index verifies."""

    def make() -> None:
        if platform.machine() != "x86_64" or not shutil.which("apt-get"):
            raise SetupError("the 32-bit MicroPython needs Debian on x86-64")
        mirror = debian_mirror()
        problems = []
        for suite in MPY32_SUITES:
            shutil.rmtree(home, ignore_errors=True)
            try:
                fetch(suite, mirror)
                break
            except SetupError as error:
                problems.append(f"{suite}: {str(error).splitlines()[0][:200]}")
        else:
            raise SetupError(
                "no suite gave a verified 32-bit MicroPython:\n" + "\n".join(problems)
            )

    def fetch(suite: str, mirror: str) -> None:
        say(f"fetching a 32-bit MicroPython (Debian {suite}, i386)")
        apt = home / "apt"
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (apt / folder).mkdir(parents=True)
        (apt / "state/status").touch()
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (apt / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {suite} main\n")
        (apt / "apt.conf").write_text(
            'APT::Architecture "i386";\nAPT::Architectures { "i386"; };\n'
            'APT::Sandbox::User "";\n'
            'Acquire::Languages "none";\n'
            f'Dir::State "{apt}/state";\nDir::State::status "{apt}/state/status";\n'
            f'Dir::Cache "{apt}/cache";\nDir::Etc::SourceList "{apt}/sources.list";\n'
            'Dir::Etc::SourceParts "/dev/null";\n'
        )
        env = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
        # Without Error-Mode apt exits 0 although an index did not verify.
        run("apt-get", "-o", "APT::Update::Error-Mode=any", "update", env=env)
        debs = home / "debs"
        debs.mkdir()
        run("apt-get", "download", *MPY32_PACKAGES, env=env, cwd=debs)
        for deb in sorted(debs.glob("*.deb")):
            run("dpkg-deb", "-x", deb, home / "root")
        root = home / "root"
        (loader, *_) = root.rglob("ld-linux.so.2")
        libraries = ":".join(
            str(p) for p in (root / "usr/lib/i386-linux-gnu", root / "lib/i386-linux-gnu")
        )
        program.write_text(
            f"#!/bin/sh\nexec {shlex.quote(str(loader))} --library-path {shlex.quote(libraries)} "
            f'{shlex.quote(str(root / "usr/bin/micropython"))} "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        run(program, "-c", "import sys, tls; assert sys.maxsize == 2**31 - 1")
        for unneeded in (apt, debs):
            shutil.rmtree(unneeded)

    home = BUILD / "mpy32"
    program = home / "micropython"
    once("mpy32", str(ROOT), make, program)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="bootstrap.py")
    parser.add_argument("--mpy32", action="store_true", help="also fetch the 32-bit MicroPython")
    wanted = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    LOG.write_text("")
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever python3 there is
            raise SetupError(
                f"Python 3.11 or newer is needed; this is {platform.python_version()}"
            )
        system_packages()
        python_environment()
        umqtt()
        if wanted.mpy32:
            try:
                micropython_32()
            except SetupError as error:
                # Not fatal: the lane is then skipped, and the tests say so by name.
                say(f"no 32-bit lane: {error}")
        broker_plugin()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
