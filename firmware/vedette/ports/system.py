"""What an agent gets to start with that is alone on a Linux system, and watches all of it.

There is more of it than on a board, and there is room for more that waits for the hub.
"""

ARGUMENTS = {"system": True, "outbox_size": 65532}
