"""The sub-commands of `vedette`."""
