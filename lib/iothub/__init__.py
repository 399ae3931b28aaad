"""A client for Azure IoT Hub on MicroPython. See docs/iothub.md."""

from . import clock
from .client import Credentials, HubClient
from .errors import HubError

__all__ = ("Credentials", "HubClient", "HubError", "clock")
