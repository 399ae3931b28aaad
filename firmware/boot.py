"""Brings the board up: the tap first, before anything imports socket; then network and clock."""

from vedette import tap

tap.install()
