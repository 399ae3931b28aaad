"""Checks of whether a board runs well enough to be trusted."""

BENCHMARK = "MPY-*"

CHECKS = """
Operation-6.1|Medium|clock|The clock is set|Let the board reach a time server
Operation-6.2|Medium|watchdog|The watchdog is on|Set watchdog in config.json
Operation-6.3|Low|heap 8192|There is heap left|Free memory in the application
Operation-6.4|Low|storage 10|A tenth of the storage is free|Remove files
Operation-6.5|Medium|reset WDT_RESET|The last reset was expected|Look for what held the loop
"""


def check_clock(facts):
    return "" if facts.clock_is_set() else "it was never set"


def check_watchdog(facts):
    return "" if facts.agent.watchdog else "it is off"


def check_heap(facts, least):
    free = facts.heap_free()
    return "" if free >= int(least) else "%d bytes are free" % free


def check_storage(facts, percent):
    total, free = facts.storage()
    return "" if free * 100 >= total * int(percent) else "%d of %d bytes are free" % (free, total)


def check_reset(facts, *unexpected):
    cause = facts.reset_cause()
    if cause is None:
        raise RuntimeError("this firmware does not tell why the board was reset")
    return cause if cause in unexpected else ""
