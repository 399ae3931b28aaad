"""The host side of Vedette: the `vedette` command and the local hub."""

__version__ = "0.1.0"
