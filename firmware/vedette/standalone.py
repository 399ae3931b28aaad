"""The agent on its own: config.json says which hub, app.py, if there is one, runs beside it."""

import asyncio
import io
import json
import sys

from iothub import HubError
from micropython import const

from . import agent as agents
from . import log, store

CONFIG = "config.json"

_FILE_MAX = const(4096)
_MISSING = "no module named 'app'"


class ConfigError(ValueError):
    """Says what is wrong in config.json, and what to do; never shows a value."""


def _strings(value):
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ConfigError("must be a path, or a list of paths")
    return value


def _string(value):
    if not isinstance(value, str) or not value:
        raise ConfigError("must be a string")
    return value


def _number(value):
    if type(value) is not int or not 0 <= value <= 65535:
        raise ConfigError("must be an integer from 0 to 65535")
    return value


# The arguments of vedette.start that config.json may give.
_KEYS = {
    "connection_string": _string,
    "ca": _strings,
    "state": _string,
    "outbox_size": _number,
    "watchdog": _number,
}
_REQUIRED = ("connection_string", "ca")


def read(path=CONFIG):
    """Returns the arguments for `vedette.start`. Errors: ConfigError."""
    try:
        data = store.read(path, _FILE_MAX)
    except OSError as error:
        raise ConfigError("%s cannot be read (errno %d): create it" % (path, error.errno))
    if data is None:
        raise ConfigError("%s is longer than %d bytes" % (path, _FILE_MAX))
    stream = io.BytesIO(data)
    try:
        document = json.load(stream)
    except ValueError:
        before = data[: stream.tell()].split(b"\n")
        place = (path, len(before), len(before[-1]))
        raise ConfigError("%s is not JSON: look at line %d, column %d" % place)
    if not isinstance(document, dict):
        raise ConfigError('%s must hold an object, {"connection_string": ...}' % path)
    for key in _REQUIRED:
        if key not in document:
            raise ConfigError("%s: %s is missing" % (path, key))
    for key, value in document.items():
        if key not in _KEYS:
            raise ConfigError("%s: %s is no key; there are %s" % (path, key, ", ".join(_KEYS)))
        try:
            document[key] = _KEYS[key](value)
        except ConfigError as reason:
            raise ConfigError("%s: %s %s" % (path, key, reason))
    return document


def _start():
    try:
        return agents.start(**read())
    except (ConfigError, HubError) as error:
        log.error("the agent does not run: %s" % error)
        return None


async def _run_app(agent):
    """Runs app.py's main(). Returns False where there is no app.py."""
    try:
        import app

        await app.main()
    except Exception as error:
        if isinstance(error, ImportError) and str(error) == _MISSING:
            return False
        sys.print_exception(error, sys.stderr)
        log.error("app.py ended with an error; the agent goes on")
        if agent:
            agent.counters["app_errors"] += 1
    else:
        log.info("app.py ended; the agent goes on")
    return True


async def _main():
    agent = _start()
    await _run_app(agent)
    while agent:
        await asyncio.sleep(3600)


def run():
    """Runs agent and application until interrupted. Returns 1 when the agent could not run."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # app.py stands beside config.json
    try:
        asyncio.run(_main())
    except KeyboardInterrupt:
        return 0
    return 1
