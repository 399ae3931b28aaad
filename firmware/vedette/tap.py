"""The tap and its flow table: in place before anything else imports socket."""

from flowtable import FlowTable
from nettap import sockets

table = None


def install():
    """Makes the table and begins to watch, once."""
    global table
    if table is None:
        table = FlowTable()
        sockets.install(table)


def remove():
    """Stops watching, and lets go of the table."""
    global table
    sockets.uninstall()
    table = None
