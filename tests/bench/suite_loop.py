"""How late the application's loop gets: at work, while connecting, and while the hub is silent."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from agentbench import der, running_hub
from measures import Budget, Samples, device, measure
from slowlink import Link, slow_link

DELAY_S = 0.01  # each way: round trips of 20 ms
RUNS = 3
TWIN = {
    "microAgent": {
        "CollectorsCore_PriorityIntervals": "0.05,0.1,1440",
        "NetworkActivity_MessageFrequency": "High",
        "Statistics_MessageFrequency": "Medium",
    }
}


def lag(seconds: int, disturb: Callable[[Link, threading.Event], None]) -> dict[str, list[float]]:
    """Lateness through a slow link, while `disturb(link, stop)` runs beside it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_hub(folder) as hub, slow_link(hub.port, DELAY_S) as link:
            connection_string = hub.create_device("lag").replace(f":{hub.port}", f":{link.port}")
            hub.set_twin("lag", TWIN)
            stop = threading.Event()
            thread = threading.Thread(target=disturb, args=(link, stop))
            thread.start()
            arguments = (str(seconds), connection_string, str(der(hub.ca, folder)))
            try:
                return device("loop_lag.py", *arguments, compiled=True)
            finally:
                stop.set()
                thread.join()


def several(
    seconds: int, disturb: Callable[[Link, threading.Event], None]
) -> list[dict[str, list[float]]]:
    return [lag(seconds, disturb) for _ in range(RUNS)]


@measure(
    Budget("loop.lag_p99", "ms", 5, portable=False),
    Budget("loop.lag_max", "ms", 30, portable=False),
)
def at_work() -> Samples:
    runs = several(20, lambda link, stop: None)
    if any(run["acknowledged"][0] < 4 for run in runs):
        raise RuntimeError(f"the agent published too little: {runs}")
    return {
        "loop.lag_p99": [run["p99"][0] for run in runs],
        "loop.lag_max": [run["max"][0] for run in runs],
    }


@measure(Budget("loop.lag_connect", "ms", 250, portable=False))
def connecting() -> Samples:
    def cut(link: Link, stop: threading.Event) -> None:
        while not stop.wait(4):
            link.cut()

    runs = several(20, cut)
    if any(run["connects"][0] < 3 for run in runs):
        raise RuntimeError(f"the agent connected too seldom: {runs}")
    return {"loop.lag_connect": [run["max"][0] for run in runs]}


@measure(Budget("loop.lag_stall", "ms", 30, portable=False))
def stalled() -> Samples:
    def stall(link: Link, stop: threading.Event) -> None:
        stop.wait(6)
        link.stall(True)
        stop.wait(30)
        link.stall(False)

    return {"loop.lag_stall": [run["max"][0] for run in several(36, stall)]}
