"""Checks of whether a board runs well enough to be trusted."""

from iothub import clock

CHECKS = """
MPY-*
Operation-6.1|Medium|clock|The clock is set|Let the board reach a time server
Operation-6.2|Medium|watchdog|The watchdog is on|Set watchdog in config.json
Operation-6.3|Low|heap 8192|There is heap left|Free memory in the application
Operation-6.4|Low|storage 10|A tenth of the storage is free|Remove files
Operation-6.5|Medium|reset WDT_RESET|The last reset was expected|Look for what held the loop
"""


def check_clock(facts):
    return "" if clock.is_set() else "it was never set"


def check_watchdog(facts):
    return "" if facts.agent.watchdog else "it is off"


def check_heap(facts, limit):
    """Passes where so many bytes were free after each collection of garbage."""
    free = facts.agent.heap_low_water
    return "" if free >= int(limit) else "%d bytes were free" % free


def check_storage(facts, limit):
    """Passes with so many hundredths of the file system free."""
    total, free = facts.agent.port().storage()
    return "" if free * 100 >= total * int(limit) else "%d of %d bytes are free" % (free, total)


def check_reset(facts, *names):
    """Passes where the cause of the last reset is none of these."""
    cause = facts.agent.port().reset_cause()
    if cause is None:
        raise RuntimeError("this firmware does not tell why the board was reset")
    return cause if cause in names else ""
