"""What a manifest.py freezes: the functions that MicroPython's build gives to it, as documented.

Source: https://docs.micropython.org/en/latest/reference/manifest.html
"""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from typing import Any


class Manifest:
    """`files`: what is frozen, by its path on the device; the lists: what is not ours."""

    def __init__(self, path: Path) -> None:
        self.files: dict[str, Path] = {}
        self.required: list[str] = []
        self.included: list[str] = []
        self.metadata: list[dict[str, Any]] = []
        self._libraries: dict[str, Path] = {}
        self._visited: set[Path] = set()
        self._run(path.resolve())

    def _run(self, path: Path) -> None:
        if path in self._visited:
            return
        self._visited.add(path)
        functions = {
            "metadata": lambda **given: self.metadata.append(given),
            "include": self._include,
            "require": self._require,
            "add_library": self._add_library,
            "package": self._package,
            "module": self._module,
        }
        with chdir(path.parent):
            exec(compile(path.read_text(), path, "exec"), functions)

    def _include(self, path: str) -> None:
        if path.startswith("$("):  # MicroPython's own
            self.included.append(path)
        else:
            self._run(Path(path).resolve())

    def _require(self, name: str, library: str | None = None) -> None:
        if library is None:  # of micropython-lib
            self.required.append(name)
        else:
            self._run(self._libraries[library] / name / "manifest.py")

    def _add_library(self, name: str, path: str) -> None:
        self._libraries[name] = Path(path).resolve()

    def _package(self, name: str, files: list[str] | None = None, base_path: str = ".") -> None:
        base = Path(base_path).resolve()
        if files is None:
            found = [path for path in (base / name).rglob("*.py")]
        else:
            found = [base / name / file for file in files]
        for path in found:
            self._add(path, path.relative_to(base))

    def _module(self, name: str, base_path: str = ".") -> None:
        self._add(Path(base_path).resolve() / name, Path(name))

    def _add(self, path: Path, target: Path) -> None:
        os.stat(path)
        assert target.as_posix() not in self.files, f"{target} is there twice"
        self.files[target.as_posix()] = path
