"""Small JSON documents kept in one folder on flash: written whole, or not at all."""

import json
import os

from micropython import const

from . import log

FOLDER = "vedette-state"  # of the agent, unless it is told another

_FILE_MAX = const(8192)


def read(path, limit):
    """Returns the bytes of a file of at most `limit` bytes, None of a longer one. Errors: OSError.

    Takes no more heap than the file is long.
    """
    if os.stat(path)[6] > limit:
        return None
    with open(path, "rb") as file:
        return file.read()


class Store:
    """`folder` is made when it is first needed. `corrupt` counts files that could not be read."""

    def __init__(self, folder):
        self._folder = folder
        self.corrupt = 0

    def load(self, name):
        """Returns the document, or None where there is none or it is damaged."""
        try:
            return json.loads(read(self._path(name), _FILE_MAX) or b"")
        except OSError:
            return None
        except ValueError:  # UnicodeError is one too
            self.corrupt += 1
            return None

    def _save(self, name, document):
        try:
            os.mkdir(self._folder)
        except OSError:
            pass  # it exists; where it cannot be made, open() says so
        path = self._path(name)
        with open(path + ".new", "w") as file:
            json.dump(document, file)
        os.rename(path + ".new", path)

    def keep(self, name, document):
        """Saves the document where that is possible, and says so where it is not."""
        try:
            self._save(name, document)
        except OSError as error:
            log.warning("%s.json is not kept: %s" % (name, error))

    def _path(self, name):
        return "%s/%s.json" % (self._folder, name)
