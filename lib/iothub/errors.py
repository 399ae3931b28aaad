class HubError(Exception):
    """Why the hub could not be reached or refused something.

    `code` is one of: "clock-not-set", "credentials", "dns", "unreachable", "certificate",
    "host-name", "refused", "timeout", "closed", "protocol", "too-large", "throttled", "rejected",
    "server", "writer", "memory", "stopped", "internal". `text` says what is wrong and what to do.
    Neither ever holds a key or a token.
    """

    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self):
        return self.code + ": " + self.text
