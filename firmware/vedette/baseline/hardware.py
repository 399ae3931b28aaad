"""Checks of what a board's chip protects, by its registers.

Sources: esp-idf's soc/efuse_reg.h of each chip, and its table esp_efuse_table.csv; ST's headers
stm32f4xx.h, stm32f7xx.h (FLASH_OPTCR), stm32h7xx.h (FLASH_OPTSR_CUR); Arm's Debug Halting Control
and Status Register; pico-sdk's hardware/regs/otp.h (OTP_CRITICAL: what the boot read from OTP).
"""

from . import listed

CHECKS = """
MPY-*
Hardware-5.1|Medium|register ESP32:3ff5a018:30:set ESP32S3:60007038:100000:set ESP32C3:60008838:100000:set RP2350:40120148:1:set|Secure boot is on|Sign the firmware and enable secure boot
Hardware-5.2|High|register ESP32:3ff5a000:7f00000:odd ESP32S3:60007034:1c0000:odd ESP32C3:60008834:1c0000:odd|The flash is encrypted|Enable flash encryption
Hardware-5.3|High|register ESP32:3ff5a018:40:set ESP32S3:60007030:80000:set ESP32S3:60007030:70000:odd ESP32C3:60008830:80000:set ESP32C3:60008830:70000:odd RP2350:40120148:4:set|The debug port is closed|Burn the fuse that disables JTAG or SWD
Hardware-5.4|High|register ESP32S3:60007038:400000:set ESP32C3:60008830:200:set|The debug port on USB is closed|Burn DIS_USB_JTAG
Hardware-5.5|Medium|register ESP32:3ff5a000:8000000:set ESP32S3:6000703c:21:set ESP32C3:6000883c:21:set|Flash cannot be read by download mode|Burn ENABLE_SECURITY_DOWNLOAD, on an ESP32 UART_DOWNLOAD_DIS
Hardware-5.6|High|register STM32F4*:40023c14:ff00:not-aa00 STM32F7*:40023c14:ff00:not-aa00 STM32H7*:5200201c:ff00:not-aa00|Read-out protection is on|Set RDP to level 1, or to level 2 which also closes SWD for ever
Hardware-5.7|High|register STM32*:e000edf0:1:clear RP2350:e000edf0:1:clear|No debugger is attached|Find out who attached it
Hardware-5.8|Medium|repl|The serial REPL is closed|Build the firmware without it, or keep the board where nobody can plug in
Hardware-5.9|Medium|usb_drive|The files are no USB drive|Call pyb.usb_mode("VCP") in boot.py
"""  # noqa: E501


def _check_register(facts, *names):
    """Passes where one of these holds of this chip; each is chip:address:mask:rule.

    The chip may end in "*". Rules: any bit of the mask "set", all "clear", an "odd" number of bits
    set, or "not-" a value; all numbers are hexadecimal. Another address could crash the board.
    """
    chip = facts.chip()
    found = []
    for name in names:
        name, address, mask, rule = name.split(":")
        if chip != name and not (name[-1] == "*" and chip.startswith(name[:-1])):
            continue
        value = facts.register(int(address, 16)) & int(mask, 16)
        if rule == "odd":
            good = bin(value).count("1") % 2
        elif rule == "set" or rule == "clear":
            good = bool(value) == (rule == "set")
        else:
            good = value != int(rule[4:], 16)
        if good:
            return ""
        found.append("register %s has %x" % (address, value))
    return listed(found) if found else None


def check_repl(facts):
    return listed([name for name in facts.serial() if name[:3] not in ("MSC", "HID")])


def check_usb_drive(facts):
    if facts.platform != "STM32":
        return None
    return listed([name for name in facts.serial() if "MSC" in name])
