"""The running configuration: the twin's keys with their defaults, and what a document gave.

Only what a document gave is held; the rest is read from the table below, which is one string
because a board has no heap for a hundred objects. `validation` checks documents by the same table.
"""

COLLECTORS = (
    "NetworkActivity",
    "Process",
    "SystemInformation",
    "Baseline",
    "ListeningPorts",
    "Heartbeat",
    "Statistics",
)

# key, kind, default, limits; "*" stands for each collector without a line of its own
KEYS = """
CollectorsCore_PriorityIntervals intervals 30,120,1440
*_Disabled boolean
NetworkActivity_MessageFrequency choice Medium High Medium Low
Process_MessageFrequency choice Medium High Medium Low
*_MessageFrequency choice Low High Medium Low
NetworkActivity_CacheSize integer 256 16 256 1
NetworkActivity_OverflowPolicy choice DropNew DropNew DropOldest
NetworkActivity_AgentTraffic choice Exclude Exclude Include
Process_CacheSize integer 256 16 256 1
Process_PollingInterval integer 100000 50000 60000000 1
Baseline_GroupsDisabled text  1024
Baseline_ChecksDisabled numbers  1024
Baseline_CustomChecks checks  2048
SystemInformation_HardwareVendor text  128
SystemInformation_HardwareModel text  128
SystemInformation_HardwareSerialNumber text  128
SystemInformation_FirmwareVendor text  128
SystemInformation_FirmwareVersion text  128
Alerts_AllowedAddresses networks  1024
Alerts_FlowsLimit integer 200 0 256 1
Alerts_PortsLimit integer 8 0 64 1
Alerts_UnknownPort boolean
Alerts_BytesOutLimit integer 0 0 1000000000 1
Alerts_FailedLoginsLimit integer 0 0 1000 1
Alerts_ChangedFile boolean
IothubModule_MessageTimeout integer 2880 1 44640 1
Message_Format choice columns columns objects
Message_MaxSize integer 65536 4096 262144 4096
Message_DailyQuota integer 0 0 1000000 1
"""


def line(key):
    """Returns [key, kind, default, limits...], None for a key that is not there."""
    collector, _, name = key.partition("_")
    if not (collector.isalpha() and name.isalpha()):
        return None
    at = KEYS.find("\n" + key + " ")
    if at < 0 and collector in COLLECTORS:
        at = KEYS.find("\n*_" + name + " ")
    return KEYS[at + 1 : KEYS.find("\n", at + 1)].split(" ") if at >= 0 else None


class Settings:
    """`settings["Message_Format"]` is the value in force.

    `defaults` holds what the platform says in place of the table's defaults.
    """

    def __init__(self, defaults):
        self.defaults = defaults
        self._seconds = (1800, 7200, 86400)
        self._values = {}

    def __getitem__(self, key):
        for held in (self._values, self.defaults):
            if key in held:
                return held[key]
        _, kind, *rest = line(key)
        return False if kind == "boolean" else int(rest[0]) if kind == "integer" else rest[0]

    def schedule(self, collector):
        """Returns (priority 0 to 2, its interval, the longest interval), in seconds."""
        priority = ("High", "Medium", "Low").index(self[collector + "_MessageFrequency"])
        return priority, self._seconds[priority], self._seconds[2]

    def apply(self, values):
        """Puts values that `validation.check` found good in force; all others are the defaults."""
        from .validation import intervals

        self._values = values
        self._seconds = intervals(self["CollectorsCore_PriorityIntervals"])
