"""Who the device is at its hub."""

from . import bag
from .errors import cold


class Credentials:
    """A device, or one of its modules, with its symmetric key (the bytes, not the base64).

    Or with `certificate`: a pair, the X.509 certificate and its private key, both in DER form
    (bytes, or paths); `key` is None then.
    """

    policy = None

    def __init__(self, host, device_id, key, module_id=None, port=8883, certificate=None):
        self.host = host
        self.port = port
        self.key = key
        self.certificate = certificate
        self.client_id = device_id
        self.path = "devices/" + bag.quote(device_id)  # of the identity, in topics
        self.resource = host + "/devices/" + device_id  # that its token is for
        if module_id:
            self.client_id += "/" + module_id
            self.path += "/modules/" + bag.quote(module_id)
            self.resource += "/modules/" + module_id
        self.user = host + "/" + self.client_id + "/?api-version=2021-04-12"

    @classmethod
    def parse(cls, text):
        """Credentials of "HostName=H[:PORT];DeviceId=D;[ModuleId=M;]SharedAccessKey=K".

        HubError "credentials" says what is wrong, without a value: values may be secret.
        """
        return cls(*cold("keys", "parse", text))

    def password(self, lifetime):
        """A token that is valid for `lifetime` seconds from now; None with a certificate."""
        return cold("keys", "token", self, lifetime)
