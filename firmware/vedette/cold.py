"""Code that is needed now and then does not stay in the heap."""

import gc
import sys


class Cold:
    """`with Cold():` the agent's modules that are first imported meanwhile are dropped after it.

    What keeps state between two uses must have been imported before.
    """

    def __enter__(self):
        gc.collect()  # so that what stays of it, such as names, goes where there are gaps
        self._kept = set(sys.modules)

    def __exit__(self, *_):
        for name in list(sys.modules):
            if name.startswith("vedette.") and name not in self._kept:
                del sys.modules[name]
                package, _, module = name.rpartition(".")
                if package in sys.modules:
                    delattr(sys.modules[package], module)


def call(module, function, *args):
    """Calls a function, or a coroutine, of a module of the agent that is let go of afterwards."""
    with Cold():
        module = __import__("vedette." + module, None, None, (function,))
        return getattr(module, function)(*args)
