"""What the device is and how full its memories are. The platform's words, unless the twin's."""

from micropython import const

from .. import VERSION
from . import Base

_COLUMNS = const(
    "hardware_vendor,hardware_model,hardware_serial_number,firmware_vendor,"
    "firmware_version,os_name,os_version,os_platform,os_arch,agent_type,agent_version,"
    "memory_total,memory_free,storage_total,storage_free,cpu_frequency,flash_size,"
    "file_system,uptime,reset_cause,nics"
)
_CHOSEN = const("HardwareVendor,HardwareModel,HardwareSerialNumber,FirmwareVendor,FirmwareVersion")


class Collector(Base):
    name = event = "SystemInformation"
    event_type = "Security"

    async def collect(self):
        agent = self.agent
        port = agent.port()
        row = [agent.settings["SystemInformation_" + key] or None for key in _CHOSEN.split(",")]
        row.extend(port.operating_system())
        row.extend(("Vedette", VERSION))
        row.extend(port.memory())
        row.extend(port.storage())
        row.extend(port.hardware())
        row.extend((port.uptime(), port.reset_cause(), port.nics()))
        await self.emit(_COLUMNS, [row])
