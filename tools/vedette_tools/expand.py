"""From the `columns` form of an event's payload back to the `objects` form.

The one place that knows how; docs/messages.md describes both forms.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def expand(event: dict[str, Any]) -> dict[str, Any]:
    """Returns the event with its payload as a list of objects; one that has it already, as it is.

    Errors: KeyError or ValueError for what does not follow the message schema.
    """
    payload = event["Payload"]
    if isinstance(payload, list):
        return event
    rows = _rows(payload)
    for table in payload.get("shared", []):
        _share(rows, table)
    if event["Name"] == "ConnectionCreate":
        rows = [_connection(row) for row in rows]
    event = {**event, "Payload": rows}
    if "Processes" in event:
        event["Processes"] = _rows(event["Processes"])
    return event


def _rows(table: dict[str, Any]) -> list[Row]:
    return [_named(table["columns"], values) for values in table["rows"]]


def _named(columns: list[str], values: list[Any]) -> Row:
    return dict(zip(columns, values, strict=True))


def _share(rows: list[Row], table: dict[str, Any]) -> None:
    """Gives each row what the table says once for the run of rows that it belongs to."""
    at = 0
    for values in table["rows"]:
        shared = _named(table["columns"], values)
        end = at + shared.pop("row_count")
        for row in rows[at:end]:
            row.update(shared)
        at = end
    if at != len(rows):
        raise ValueError(f"a shared table goes for {at} rows of {len(rows)}")


def _connection(row: Row) -> Row:
    """Puts the host's name where the objects form has it."""
    host = row.pop("host_name")
    return {**row, "extended_properties": None if host is None else {"host_name": host}}
