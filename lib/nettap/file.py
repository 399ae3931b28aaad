"""What a tapped socket's makefile() gives on unix: a file on the socket's descriptor."""

from nettap.sockets import Socket


class File(Socket):
    """Counts for its socket what the file moves."""

    def __init__(self, sock, file):
        self._native = file
        self._sock = sock
        self._tap = sock._tap

    def __new__(cls, sock, file):
        return object.__new__(cls)

    def _missed(self, count, size, data):
        return self._sock._missed(count, size, data)

    def read(self, size=-1):
        return self._got(self._native.read(size))

    def readline(self, size=-1):
        return self._got(self._native.readline(size))

    def _got(self, data):
        if data is not None:  # a text file's length is in characters
            size = len(data.encode() if isinstance(data, str) else data)
            self._missed(self._tap[0], size, data)
        return data

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def readlines(self):
        return list(self)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        return self._native.close()
