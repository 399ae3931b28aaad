"""What can go wrong in the hub, as one type for each way it is answered."""

from __future__ import annotations


class HubStartError(Exception):
    """The hub cannot run. The text says why, and what to do."""


class Refused(Exception):
    """Why a CONNECT is refused: for the hub's log. The client is told nothing, as in IoT Hub."""


_CODES = {
    400: "ArgumentInvalid",
    401: "IotHubUnauthorizedAccess",
    404: "DeviceNotFound",
    409: "DeviceAlreadyExists",
    403: "DeviceMaximumQueueDepthExceeded",
    412: "PreconditionFailed",
    413: "MessageTooLarge",
    429: "ThrottlingException",
    504: "GatewayTimeout",
}


class RequestError(Exception):
    """A request that is refused, a device's or the service side's: an HTTP status, why, and what a
    person may do about it."""

    def __init__(self, status: int, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.next_step = next_step

    @property
    def code(self) -> str:
        """IoT Hub's name for it."""
        return _CODES.get(self.status, "ServerError")
