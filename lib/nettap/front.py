"""What an application gets for `import socket` while the tap is in; `sockets.install` fills it.

A module, not an object that looks like one: `from socket import *` needs the real thing.
"""
