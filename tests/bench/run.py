"""`make bench`: measures what the project promises in figures, and says which promise is broken.

Prints a table and writes build/bench.json. A figure is the median of repeated runs; both sides of
a ratio are measured in turn within one run. docs/benchmarks.md describes each method. With `--ci`
only budgets that do not depend on the machine's speed can fail; the others are reported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measures import ROOT, Figure, Measure, registry  # noqa: E402

SUITES = ("flowtable", "tap", "message", "mqtt", "agent", "loop", "linux")


def collect(only: str) -> list[Figure]:
    for suite in SUITES:
        importlib.import_module(f"suite_{suite}")
    figures = []
    for measure in registry:
        if any(name.startswith(only) for name in measure.names):
            print(f"measuring {', '.join(measure.names)}", file=sys.stderr, flush=True)
            figures += run(measure)
    return figures


def run(measure: Measure) -> list[Figure]:
    samples = measure.function()
    return [
        Figure(
            name=budget.name,
            value=round(statistics.median(samples[budget.name]), 4),
            unit=budget.unit,
            budget=budget.text,
            ok=budget.holds(statistics.median(samples[budget.name])),
            runs=len(samples[budget.name]),
            min=round(min(samples[budget.name]), 4),
            max=round(max(samples[budget.name]), 4),
            portable=budget.portable,
        )
        for budget in measure.budgets
    ]


def show(figures: list[Figure]) -> None:
    table = Table(box=None, header_style="bold")
    for heading in ("name", "value", "unit", "budget", "runs", "min", "max", ""):
        table.add_column(heading, justify="left" if heading in ("name", "unit", "") else "right")
    for f in figures:
        verdict = "[green]ok[/]" if f.ok else "[red]over budget[/]"
        cells = (
            f"{f.value:g}",
            f.unit,
            f.budget,
            str(f.runs),
            f"{f.min:g}",
            f"{f.max:g}",
            verdict,
        )
        table.add_row(f.name, *cells)
    Console(width=110 if not sys.stdout.isatty() else None).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--ci", action="store_true", help="fail only on what any machine must hold"
    )
    parser.add_argument("--only", default="", metavar="PREFIX", help="e.g. flowtable, or tap.send")
    arguments = parser.parse_args()
    figures = collect(arguments.only)
    if not figures:
        print(f"no figure begins with {arguments.only!r}", file=sys.stderr)
        return 2
    show(figures)
    out = ROOT / "build" / "bench.json"
    out.write_text(json.dumps([f.record() for f in figures], indent=1) + "\n")
    broken = [f for f in figures if not f.ok and (f.portable or not arguments.ci)]
    within = len(figures) - len(broken)
    print(f"{within} within budget, {len(broken)} over; see {out.relative_to(ROOT)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
