"""How the code comes onto a device: mip, frozen into the firmware, ROMFS."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import LANES, ROOT
from deskfixture import Desk
from manifests import Manifest
from vedette_tools import mpy

LIBRARIES = ("flowtable", "iothub", "nettap")
BOARDS = sorted(path.parent.name for path in (ROOT / "boards").glob("*/board.toml"))
ROMFS_MAX = 192 * 1024  # docs/bring-up.md asks for a partition of that size
UMQTT = ROOT / "build" / "umqtt" / "umqtt" / "simple.py"


def described(board: str) -> dict:
    return tomllib.loads((ROOT / "boards" / board / "board.toml").read_text())


def files_of(library: str) -> list[str]:
    folder = ROOT / "lib" / library
    paths = [path.relative_to(folder) for path in folder.rglob("*.py")]
    return sorted(path.as_posix() for path in paths if path.name != "manifest.py")


@pytest.mark.parametrize("library", LIBRARIES)
def test_mip_and_require_take_all_of_a_library(library: str) -> None:
    package = json.loads((ROOT / "lib" / library / "package.json").read_text())
    whole = [[f"{library}/{file}", file] for file in files_of(library)]
    assert package["urls"] == whole, f"lib/{library}/package.json lists other files than there are"
    manifest = Manifest(ROOT / "lib" / library / "manifest.py")
    assert sorted(manifest.files) == [target for target, _ in whole]
    assert manifest.required == [name for name, _ in package["deps"]]


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_freezes_all_that_it_runs(board: str) -> None:
    manifest = Manifest(ROOT / "boards" / board / "manifest.py")
    own = {
        relative.as_posix(): path
        for path, relative in mpy.sources()
        if ROOT / "build" not in path.parents
    }
    # What is for Linux only comes with its package, and does not load elsewhere.
    own.update({name: ROOT / "firmware" / name for name in mpy.LINUX_ONLY})
    assert manifest.files == own
    assert manifest.required == ["umqtt.simple"]
    (included,) = manifest.included
    assert included.startswith(
        "$(BOARD_DIR)/" if "RPI" in board or "NUCLEO" in board else "$(PORT_DIR)/"
    )


def test_there_is_one_version() -> None:
    manifest = Manifest(ROOT / "firmware" / "manifest.py")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (assignment,) = [
        line
        for line in (ROOT / "firmware/vedette/__init__.py").read_text().splitlines()
        if line.startswith("VERSION = ")
    ]
    versions = {given["version"] for given in manifest.metadata} | {project["version"]}
    assert versions == {assignment.split('"')[1]}
    assert all(given["description"] and given["license"] == "MIT" for given in manifest.metadata)


class Index(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index of packages for mip, with umqtt.simple."""
    folder = tmp_path / "index" / "package" / "6" / "umqtt.simple"
    folder.mkdir(parents=True)
    (folder / "simple.py").write_bytes(UMQTT.read_bytes())
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Index, directory=str(tmp_path / "index"))
    )
    url = f"http://127.0.0.1:{server.server_port}"
    latest = {"urls": [["umqtt/simple.py", f"{url}/package/6/umqtt.simple/simple.py"]]}
    (folder / "latest.json").write_text(json.dumps(latest))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def test_mip_installs_the_libraries(bare: Desk, index: str) -> None:
    mpremote = [str(Path(sys.executable).with_name("mpremote")), "connect", str(bare.board.port)]
    packages = [str(ROOT / "lib" / library / "package.json") for library in LIBRARIES]
    install = ["mip", "--index", index, "--target", "lib", "install", *packages]
    imports = "import sys; sys.path.append('lib'); import flowtable, iothub, nettap.sockets"
    check = f"{imports}; print(iothub.HubClient.__name__, nettap.sockets.__file__)"
    done = subprocess.run(
        [*mpremote, *install, "+", "exec", check], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "HubClient lib/nettap/sockets.py"
    found = {p.relative_to(bare.flash / "lib").as_posix() for p in bare.flash.rglob("*.py")}
    assert found == {f"{name}/{file}" for name in LIBRARIES for file in files_of(name)} | {
        "umqtt/simple.py"
    }


IMPORT_ALL = """
import sys, vfs
with open(%r, "rb") as file:
    vfs.mount(vfs.VfsRom(file.read()), "/rom")
sys.path[:] = ["/rom", ".frozen"]
for name in %r:
    assert __import__(name, None, None, ("*",)).__file__.startswith("/rom/"), name
"""


@pytest.mark.parametrize("lane", LANES)
def test_every_module_loads_from_a_romfs_image(lane: str) -> None:
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
    image = mpy.romfs(mpy.architecture(LANES[lane]))
    names = [
        ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        for _, relative in mpy.sources()
        if relative.parts[0] not in ("main.py", "boot.py")  # they run, and do not end
    ]
    command = [LANES[lane], "-X", "heapsize=4m", "-c", IMPORT_ALL % (str(image), names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


ARCHITECTURES = sorted({described(board).get("mpy_arch", "x64") for board in BOARDS})


@pytest.mark.parametrize("march", ARCHITECTURES)
def test_every_board_has_code_of_its_own_kind(march: str) -> None:
    native = [path for path, _ in mpy.sources() if "@micropython.viper" in path.read_text()]
    assert native
    for path in native:
        header = mpy.compiled(path, march)[:4]
        # For what it is: bits 2 to 5 of the third byte (py/persistentcode.h).
        assert header[:2] == b"M\x06" and mpy.ARCHITECTURES[header[2] >> 2 & 0xF] == march


@pytest.mark.slow
@pytest.mark.parametrize("march", ARCHITECTURES)
def test_every_board_has_a_romfs_image(march: str) -> None:
    image = mpy.romfs(march).read_bytes()
    assert image.startswith(b"\xd2\xcd\x31") and len(image) < ROMFS_MAX
