"""What the baseline's packs ask of Linux: its files, /proc and /sys too. Loaded for a run."""

import os

from micropython import const

from . import lines

_NAMES_MAX = const(1024)  # of one folder
_MISSING = (2, 20)  # ENOENT, ENOTDIR


class Facts:
    """`root` is the folder that the file system begins at. Errors: OSError with the path."""

    PACKS = ("debian",)
    platform = "LINUX"

    def __init__(self, agent, root=""):
        self.agent = agent
        self.root = root

    def stat(self, path):
        """Returns (mode, user id, group id)."""
        try:
            status = os.stat(self.root + path)
        except OSError as error:
            raise OSError(error.errno, path)
        return status[0], status[4], status[5]

    def exists(self, path):
        try:
            self.stat(path)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return False
        return True

    def names(self, folder):
        """Returns the names in a folder, sorted; none where there is no such folder."""
        if not self.exists(folder):
            return []
        try:
            return sorted(os.listdir(self.root + folder))[:_NAMES_MAX]
        except OSError as error:
            raise OSError(error.errno, folder)

    def lines(self, path):
        """Yields the lines of a file, without spaces around them."""
        return lines(self.root + path)

    def paths(self, pattern):
        """Returns the paths that a pattern stands for: its last part may have one "*"."""
        folder, _, name = pattern.rpartition("/")
        first, star, last = name.partition("*")
        if not star:
            return [pattern]
        names = [n for n in self.names(folder) if n.startswith(first) and n.endswith(last)]
        return [folder + "/" + name for name in names]

    def words(self, *patterns):
        """Yields the words of each line that is no comment, of all these files."""
        for pattern in patterns:
            for path in self.paths(pattern):
                for line in self.lines(path):
                    if line and line[0] != "#":
                        yield line.split()
