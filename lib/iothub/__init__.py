"""A client for Azure IoT Hub on MicroPython. See docs/iothub.md."""

from . import clock
from .client import HubClient
from .credentials import Credentials
from .errors import HubError

__all__ = ("Credentials", "HubClient", "HubError", "clock")
