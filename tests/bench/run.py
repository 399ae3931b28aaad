"""`make bench`: measures what the project promises in figures, and says which promise is broken.

Prints a table and writes build/bench.json. A figure is the median of repeated runs; both sides of
a ratio are measured in turn within one run. docs/benchmarks.md describes each method. With `--ci`
only budgets that do not depend on the machine's speed can fail, and one that is not met yet only
when it got worse; the others are reported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measures import ROOT, Budget, Figure, Measure, registry  # noqa: E402

SUITES = ("flowtable", "tap", "message", "mqtt", "agent", "loop", "linux")


def collect(only: tuple[str, ...]) -> list[Figure]:
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
    return [figure(budget, samples[budget.name]) for budget in measure.budgets]


def figure(budget: Budget, runs: Sequence[float]) -> Figure:
    value = statistics.median(runs)
    return Figure(
        name=budget.name,
        value=round(value, 4),
        unit=budget.unit,
        budget=budget.text,
        ok=budget.holds(value),
        runs=len(runs),
        min=round(min(runs), 4),
        max=round(max(runs), 4),
        fails_ci=budget.fails_ci(value),
    )


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
    parser.add_argument(
        "--only", default="", metavar="PREFIXES", help="e.g. flowtable, or tap.send,message"
    )
    arguments = parser.parse_args()
    figures = collect(tuple(arguments.only.split(",")))
    if not figures:
        print(f"no figure begins with {arguments.only!r}", file=sys.stderr)
        return 2
    show(figures)
    out = ROOT / "build" / "bench.json"
    out.write_text(json.dumps([f.record() for f in figures], indent=1) + "\n")
    over = sum(not f.ok for f in figures)
    print(f"{len(figures) - over} within budget, {over} over; see {out.relative_to(ROOT)}")
    worse = [f.name for f in figures if f.fails_ci]
    if arguments.ci and worse:
        print(f"CI does not take: {', '.join(worse)}")
    return 1 if (worse if arguments.ci else over) else 0


if __name__ == "__main__":
    sys.exit(main())
