"""A device, or a module of a device, and the names it goes by."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from vedette_tools.hub.errors import RequestError

# IoT Hub's rule for ids.
_ID = re.compile(r"[A-Za-z0-9\-.%_*?!(),:=@$']{1,128}", re.ASCII)


class Identity(NamedTuple):
    device: str
    module: str = ""

    @classmethod
    def checked(cls, device: Any, module: Any = "") -> Identity:
        """Errors: RequestError (400)."""
        for name in (device, module) if module else (device,):
            if not isinstance(name, str) or not _ID.fullmatch(name):
                raise RequestError(
                    400, f"{name!r} is no id: up to 128 of the letters, digits and -.%_*?!(),:=@$'"
                )
        return cls(device, module)

    @classmethod
    def from_path(cls, path: str) -> Identity:
        parts = path.split("/")
        return cls(parts[1], parts[3] if len(parts) > 3 else "")

    @property
    def path(self) -> str:
        """As in topics and in a token's resource."""
        return f"devices/{self.device}" + (f"/modules/{self.module}" if self.module else "")

    @property
    def client_id(self) -> str:
        return f"{self.device}/{self.module}" if self.module else self.device

    @property
    def described(self) -> str:
        """As in messages to people."""
        device = f"device {self.device!r}"
        return f"module {self.module!r} of {device}" if self.module else device

    def __str__(self) -> str:
        return self.client_id
