"""The store, and the one thread in which its blocking methods run, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vedette_tools.hub.store import Store

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self._thread = ThreadPoolExecutor(1, "database")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns; it may use the store."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: work(*args, **kwargs)
        )

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """A setting; `make` gives its value the first time. Only before the thread is in use."""
        value = self.store.setting(name)
        if value is None:
            value = make()
            self.store.set_setting(name, value)
        return value

    def close(self) -> None:
        self._thread.shutdown()
        self.store.close()
