"""What the project takes, beside what others take: `make footprint` writes docs/footprint.md.

Only figures that are the same on every machine: test_footprint.py fails when the page is no longer
true. The column of the Cortex-M3 needs what cortex_m3.py says; without it the page keeps its own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cortex_m3  # noqa: E402
import suite_message
from measures import ROOT, device  # noqa: E402
from vedette_tools import mpy  # noqa: E402

PAGE = ROOT / "docs" / "footprint.md"
COLUMNS = {"64-bit": "x64", "32-bit": "x86", "Cortex-M3": "armv7m"}
# What code there is: which files, and which of them are not meant.
CODE = {
    "always loaded: table, tap, hub client, agent": (
        ("vedette/tap.mpy", "vedette/agent.mpy"),
        (),
    ),
    "loaded when it is due, the baseline's packs left out": (
        ("iothub/*.mpy", "nettap/*.mpy", "vedette/**/*.mpy"),
        ("vedette/tap.mpy", "vedette/agent.mpy", "vedette/baseline/*.mpy"),
    ),
    "the baseline's packs": (("vedette/baseline/*.mpy",), ()),
    "umqtt.simple, whole": (("umqtt/*.mpy",), ()),
}
# From the measurements of these systems that the project started from.
PEERS = {
    "table": "Azure RTOS module, 256 slots, IPv4 only: 33,600; Linux agent: 1,087 a flow",
    "hit": "C on x86: 220",
    "wire": "Linux agent 645; Azure RTOS module 36, binary",
    "always loaded: table, tap, hub client, agent": "Azure RTOS module: 10 to 13 KB of ROM",
}
HEAD = """# Footprint

Bytes, but where it says otherwise; `make footprint` measures and writes this page, and the tests
fail when it is no longer true. Code is `.mpy` (`mpy-cross -O3`), linked as for a board; heap is
after a collection of garbage. Speed is in [benchmarks.md](benchmarks.md). The Cortex-M3
is emulated by QEMU, with MicroPython's own port, which has neither network nor asyncio.

"""

Row = tuple[str, list[int | None], str]


def rows() -> list[Row]:
    """(what, a value for each of COLUMNS or None where it is not measured, others)."""
    heaps = [device("flowtable_heap.py", lane=lane) for lane in ("64", "32")]
    board = None
    if not cortex_m3.missing():
        board = cortex_m3.run(ROOT / "tests/bench/device/flowtable_cortex_m3.py")
    tables = [int(heap["table"][0]) for heap in heaps]
    hits = [int(max(heap["heap"])) for heap in heaps]
    wire = round(suite_message.sizes("size", "64")["bytes"][0])
    found: list[Row] = [
        (
            "flow table of 256 slots, IPv4 and IPv6: heap",
            [*tables, board and board["table"]],
            PEERS["table"],
        ),
        ("heap for counting on a known flow", [*hits, board and board["heap"]], ""),
        (
            "instructions for that, the call included",
            [None, None, board and board["hit"]],
            PEERS["hit"],
        ),
        (
            "instructions for calling an empty function",
            [None, None, board and board["empty"]],
            "",
        ),
        ("a flow on the wire, of 256", [wire, wire, wire], PEERS["wire"]),
    ]
    folders = [mpy.compile_all(march) for march in COLUMNS.values()]
    for what, (chosen, others) in CODE.items():
        sizes: list[int | None] = [size(folder, chosen, others) for folder in folders]
        found.append((f"code: {what}", sizes, PEERS.get(what, "")))
    return found


def size(folder: Path, chosen: tuple[str, ...], others: tuple[str, ...]) -> int:
    def files(patterns: tuple[str, ...]) -> set[Path]:
        return {path for pattern in patterns for path in folder.glob(pattern)}

    return sum(path.stat().st_size for path in files(chosen) - files(others))


def page(found: list[Row], written: list[list[int | None]]) -> str:
    """The page; where a value is not measured, that of the page as it is `written`."""
    lines = [f"| | {' | '.join(COLUMNS)} | others |", "|---|---:|---:|---:|---|"]
    for number, (what, values, others) in enumerate(found):
        old = written[number] if number < len(written) else [None] * len(values)
        cells = [f"{v:,}" if v is not None else "" for v in merge(values, old)]
        lines.append(f"| {what} | {' | '.join(cells)} | {others} |")
    return HEAD + "\n".join(lines) + "\n"


def merge(values: list[int | None], old: list[int | None]) -> list[int | None]:
    return [new if new is not None else kept for new, kept in zip(values, old, strict=True)]


def written() -> list[list[int | None]]:
    """The values on the page, row by row."""
    text = PAGE.read_text() if PAGE.exists() else ""
    table = re.findall(r"^\| (?!\|)[^|]+\|([^|]*)\|([^|]*)\|([^|]*)\|", text, re.MULTILINE)
    return [
        [int(cell.replace(",", "")) if cell.strip() else None for cell in cells] for cells in table
    ]


if __name__ == "__main__":
    absent = cortex_m3.missing()
    if absent:
        print(f"the Cortex-M3's column stays as it is: missing {absent}", file=sys.stderr)
    PAGE.write_text(page(rows(), written()))
