"""Code that is needed now and then does not stay in the heap."""

import gc
import sys

from micropython import const

_CLOSE = const(8192)  # bytes between two collections of garbage


class Dense:
    """`with Dense():` garbage is collected often, so that what stays has no gaps between it.

    The smallest heap in which an agent runs for long is a sixth smaller by that.
    """

    users = 0

    def __enter__(self):
        if not Dense.users:
            Dense.before = gc.threshold()
            gc.threshold(_CLOSE)
        Dense.users += 1

    def __exit__(self, *_):
        Dense.users -= 1
        if not Dense.users and gc.threshold() == _CLOSE:  # else the application has set it
            gc.threshold(Dense.before)


class Cold(Dense):
    """`with Cold():` the agent's modules that are first imported meanwhile are dropped after it.

    What keeps state between two uses must have been imported before.
    """

    open = 0
    kept = None  # the modules that there were before the first of those that are open

    def __enter__(self):
        gc.collect()  # so that what stays of it, such as names, goes where there are gaps
        self._kept = set(sys.modules)
        super().__enter__()
        if not Cold.open:
            Cold.kept = self._kept
        Cold.open += 1

    def __exit__(self, *_):
        super().__exit__()
        Cold.open -= 1
        kept = self._kept
        if not Cold.open:  # what another has let go of meanwhile, and this one imported again, too
            kept, Cold.kept = Cold.kept, None
        for name in list(sys.modules):
            if name.startswith("vedette.") and name not in kept:
                del sys.modules[name]
                package, _, module = name.rpartition(".")
                if package in sys.modules:
                    delattr(sys.modules[package], module)


def call(module, function, *args):
    """Calls a function, or a coroutine, of a module of the agent that is let go of afterwards."""
    with Cold():
        module = __import__("vedette." + module, None, None, (function,))
        return getattr(module, function)(*args)
