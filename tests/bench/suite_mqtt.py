"""Figures of the hub client."""

from __future__ import annotations

import tempfile
from pathlib import Path

from agentbench import der, running_hub
from measures import Budget, Samples, device, measure

RUNS = 7


@measure(Budget("mqtt.rate", "ratio", 1.0, at_least=True))
def rate() -> Samples:
    ratios = []
    with tempfile.TemporaryDirectory() as name, running_hub(Path(name)) as hub:
        arguments = (hub.create_device("rate"), str(der(hub.ca, Path(name))))
        for _ in range(RUNS):
            ours, theirs = (
                device("mqtt_rate.py", which, *arguments)["rate"][0]
                for which in ("iothub", "umqtt")
            )
            ratios.append(ours / theirs)
    return {"mqtt.rate": ratios}
