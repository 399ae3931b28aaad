"""Shows a device's messages to a person: a line for each event, a table for its rows."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vedette_tools.expand import expand

Json = dict[str, Any]

FLOW_HEADINGS = ("", "local", "remote", "protocol", "in", "out", "hits", "first", "last")


def show_message(console: Console, record: Json) -> None:
    """Print one record as `vedette hub events` gives it."""
    sender = record["deviceId"]
    if record.get("moduleId"):
        sender += "/" + record["moduleId"]
    body = record["body"]
    if not isinstance(body, dict) or "Events" not in body:
        console.print(Text.assemble((sender, "bold"), "  ", (str(body), "dim")))
        return
    time = record["enqueuedTimeUtc"][11:19]
    console.print(Text.assemble((time, "dim"), "  ", (sender, "bold"), "  ", _names(body)))
    if record.get("schemaError"):
        console.print(Text(f"  violates the schema: {record['schemaError']}", "red"))
        return
    for event in body["Events"]:
        _show_event(console, event)


def flows_in(record: Json) -> int:
    """How many flows a record reports."""
    body = record["body"]
    if not isinstance(body, dict):
        return 0
    events = body.get("Events", [])
    return sum(len(expand(e)["Payload"]) for e in events if e["Name"] == "ConnectionCreate")


def _names(body: Json) -> Text:
    names = ", ".join(event["Name"] for event in body["Events"])
    return Text(names, "cyan")


def _show_event(console: Console, event: Json) -> None:
    rows = expand(event)["Payload"]
    if event["Name"] == "ConnectionCreate":
        console.print(_flow_table(rows, event["IntervalSeconds"]))
        return
    for row in rows:
        text = "  ".join(f"{key}={value}" for key, value in row.items() if value not in (None, ""))
        console.print(Text(f"  {event['Name']}: {text}", "dim"), soft_wrap=True)


def _flow_table(rows: list[Json], interval: int) -> Table:
    caption = f"{len(rows)} flow{'s' if len(rows) != 1 else ''} in {interval} s"
    table = Table(box=None, header_style="dim", caption=caption, caption_justify="left")
    for heading in FLOW_HEADINGS:
        right = heading in ("in", "out", "hits", "first", "last")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        incoming = row["direction"] == "In"
        names = row["extended_properties"] or {}
        table.add_row(
            Text("⇐" if incoming else "⇒", "magenta" if incoming else "green"),
            _end(row["local_address"], row["local_port"]),
            _end(names.get("host_name") or row["remote_address"], row["remote_port"]),
            f"{row['transport_protocol']} {row['application_protocol'] or ''}".rstrip(),
            f"{row['bytes_in']:,}",
            f"{row['bytes_out']:,}",
            str(row["hit_count"]),
            f"{row['first_seen']} s",
            f"{row['last_seen']} s",
        )
    return table


def _end(address: str | None, port: int | None) -> str:
    host = "?" if address is None else f"[{address}]" if ":" in address else address
    return f"{host}:{'?' if port is None else port}"
