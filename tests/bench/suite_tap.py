"""Figures of the tap in the socket layer."""

from __future__ import annotations

from measures import Budget, Samples, device, measure

HTTP_RUNS = 21
CALLS_RUNS = 7  # where the heap and the code lie differs from process to process


@measure(
    Budget("tap.send", "ratio", 1.25, ci=1.4),
    Budget("tap.recv", "ratio", 1.3),
    Budget("tap.readinto", "ratio", 1.4),
)
def calls() -> Samples:
    runs = [device("tap_speed.py") for _ in range(CALLS_RUNS)]
    return {name: [ratio for run in runs for ratio in run[name]] for name in runs[0]}


@measure(Budget("tap.http", "ratio", 0.95, at_least=True, ci=0.85))
def http() -> Samples:
    ratios = []
    for _ in range(HTTP_RUNS):
        with_tap, without = (device("tap_http.py", way)["rate"][0] for way in ("tap", "plain"))
        ratios.append(with_tap / without)
    return {"tap.http": ratios}
