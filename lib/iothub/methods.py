"""Direct methods: the hub calls, the device answers. Loaded by HubClient.on_method."""

from .errors import cold

_REQUESTS = "$iothub/methods/POST/"


class Methods:
    """Who answers: `handlers` by name. `calls` are those that run or wait, `task` runs them."""

    def __init__(self, client):
        self.client = client
        self.handlers = {}
        self.calls = []
        self.task = None
        client.route(_REQUESTS, 0, self._on_request)

    def add(self, name, callback):
        if name in self.handlers:
            raise ValueError("a callback for %s is there already" % name)
        self.handlers[name] = callback

    def forget(self, callback):
        for name, handler in list(self.handlers.items()):
            if handler == callback:
                del self.handlers[name]

    def _on_request(self, topic, payload, _packet_id):
        cold("calling", "hear", self, topic[len(_REQUESTS) :], payload)
