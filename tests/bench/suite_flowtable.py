"""Figures of the flow table."""

from __future__ import annotations

from measures import Budget, Samples, device, measure


@measure(
    Budget("flowtable.hit_ratio", "ratio", 2.0),
    Budget("flowtable.lookup_growth", "ratio", 1.2),
    Budget("flowtable.lookup_crafted", "ratio", 1.5),
)
def ratios() -> Samples:
    return device("flowtable_speed.py")


@measure(Budget("flowtable.hit_heap", "B", 0))
def hit_heap() -> Samples:
    return {
        "flowtable.hit_heap": [
            sample
            for lane in ("64", "32")
            for sample in device("flowtable_heap.py", lane=lane)["heap"]
        ]
    }


@measure(Budget("flowtable.bytes", "B", 12288))
def table_bytes() -> Samples:
    return {"flowtable.bytes": device("flowtable_heap.py", lane="32")["table"]}
