"""Runs the test functions of one file on MicroPython; tests/conftest.py reads what it prints.

micropython harness.py FILE NAME...   A line a test: START, PASS, SKIP or FAIL, then the name.
"""

import sys


class SkipTest(Exception):
    """Raised by a test that cannot run here; the text names what is missing."""


def _load(path):
    folder, name = path.rsplit("/", 1)
    sys.path.insert(0, folder)
    return __import__(name[:-3])


def _call(function):
    result = function()
    if hasattr(result, "send"):  # a coroutine
        import asyncio

        asyncio.run(result)
        asyncio.new_event_loop()


def main(path, names):
    module = _load(path)
    for name in names:
        print("\x02START", name)
        try:
            _call(getattr(module, name))
        except SkipTest as reason:
            print("\x02SKIP", name, reason)
        except Exception as error:
            sys.print_exception(error, sys.stdout)
            print("\x02FAIL", name)
        else:
            print("\x02PASS", name)


if __name__ == "__main__":
    # By its own name, so that a test file's SkipTest is the one that is caught above.
    import harness

    harness.main(sys.argv[1], sys.argv[2:])
