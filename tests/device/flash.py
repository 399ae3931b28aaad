"""A flash chip in RAM: it counts what wears it, and its power can be cut at any operation."""

import errno

from micropython import const

_BLOCKS = const(4)  # of ioctl
_SIZE = const(5)
_ERASE = const(6)


class Flash:
    """A block device for vfs.VfsLfs2, and with blocks of 512 bytes for vfs.VfsFat.

    `erases` and `programmed` (bytes) count. `power` is the number of operations until it is cut:
    of the last one only a part happens, and from then on nothing.
    """

    def __init__(self, blocks, size=4096, data=None):
        self._data = data or bytearray(b"\xff" * (blocks * size))
        self._blocks = blocks
        self._size = size
        self.power = None
        self.operations = 0
        self.erases = 0
        self.programmed = 0

    def revived(self):
        """The chip with its power back. What is closed late, by the GC, does not reach it."""
        self.power = 0
        return Flash(self._blocks, self._size, self._data)

    def readblocks(self, block, buffer, offset=0):
        start = block * self._size + offset
        buffer[:] = memoryview(self._data)[start : start + len(buffer)]

    def writeblocks(self, block, buffer, offset=None):
        start = block * self._size + (offset or 0)
        size = self._powered(len(buffer), 1 if offset is not None else self._size)
        self._data[start : start + size] = memoryview(buffer)[:size]
        self.programmed += size
        self._dead()

    def ioctl(self, operation, block):
        if operation == _BLOCKS:
            return self._blocks
        if operation == _SIZE:
            return self._size
        if operation == _ERASE:
            size = self._powered(self._size, 1)
            start = block * self._size
            self._data[start : start + size] = b"\xff" * size
            self.erases += 1
            self._dead()
            return 0
        return None

    def _powered(self, size, step):
        """How many of `size` bytes this operation changes: all, or a part as the power goes."""
        self.operations += 1
        if self.power is None or self.power > 1:
            if self.power:
                self.power -= 1
            return size
        part = size // 2 // step * step if self.power else 0
        self.power = 0
        return part

    def _dead(self):
        if self.power == 0:
            raise OSError(errno.EIO)
