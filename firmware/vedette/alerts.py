"""Rules about what the agent sees, set in the twin. What one finds is an Alert, sent at once.

Imported every half minute, and let go of again: what has to be remembered is in `agent.known`.
The connections that an alert is about are sent at once, too.
"""

from iothub import clock
from micropython import const
from nettap import sockets

from . import tap

_TOLD_MAX = const(32)  # alerts in an interval; what is over is counted
_PORTS_MAX = const(256)
_FILES_S = const(3600)  # between two looks at the deployed files
_LOGIN = const(("refused", "certificate", "host-name"))  # codes of HubError
_LOOPBACK = const("127.0.0.0/8,::1")
_NETWORK = const("NetworkActivity")
_HIGH = const(0)


async def check(agent):
    """Looks at each rule that is on."""
    known = agent.known
    now = clock.uptime()
    if now >= known.get("until", 0):  # what was found is found again an interval later, no sooner
        known["until"] = now + agent.settings.schedule(_NETWORK)[1]
        known["told"] = []
        known["new"] = 0
    collector = agent.running.get(_NETWORK)
    if collector and _check_flows(agent):
        collector.hand_over(_HIGH)
        agent.sender.wake()
    _check_ports(agent)
    _check_logins(agent)
    if agent.settings["Alerts_ChangedFile"] and now >= known.get("files", 0):
        known["files"] = now + _FILES_S
        await _check_files(agent)


def tell(agent, rule, title, description, severity):
    """Makes an Alert event, which is sent at once."""
    columns = "rule,title,description,severity"
    agent.tell("Alert", columns, [rule, title, description, severity], "Security")
    agent.sender.wake()


def _alert(agent, rule, title, description):
    """Tells of what was not told in this interval; False when it was, or when that is too much."""
    told = agent.known["told"]
    if title in told:
        return False
    if len(told) >= _TOLD_MAX:
        agent.counters["alerts_held_back"] += 1
        return False
    told.append(title)
    tell(agent, rule, title, description, "High")
    return True


def _check_flows(agent):
    settings = agent.settings
    table = tap.table
    limit = settings["Alerts_FlowsLimit"]
    found = False
    if limit and table.live > limit:
        text = "More than %d in one interval" % limit
        found = _alert(agent, "FlowsLimit", "Many connections", text)
    allowed = settings["Alerts_AllowedAddresses"]
    most = settings["Alerts_BytesOutLimit"]
    if not allowed and not most:
        return found
    from . import events, networks

    allowed = networks.parse(allowed + "," + _LOOPBACK) if allowed else None
    for index in range(table.live):
        remote = table.peek(index)
        if remote is None:
            continue
        if allowed and not networks.inside(remote, allowed):
            text = events.address_text(remote)
            title = "Connection with " + text
            text += " is in none of the networks that are allowed"
            found = _alert(agent, "AllowedAddresses", title, text) or found
        if most and table.sent_to(index) > most:
            title = "Much sent to " + events.address_text(remote)
            text = "More than %d bytes in one interval" % most
            found = _alert(agent, "BytesOutLimit", title, text) or found
    return found


def _listening(agent):
    """[protocol, port] of what listens: of all programs where the agent watches a whole system."""
    found = None
    if agent.system:
        from .ports.listening import servers

        try:
            found = servers()
        except OSError:  # a kernel without sock_diag: what the tap knows
            pass
    ports = []
    for protocol, _, port in found or sockets.listening():
        if [protocol, port] not in ports and len(ports) < _PORTS_MAX:
            ports.append([protocol, port])
    return ports


def _check_ports(agent):
    known = agent.known
    unknown = agent.settings["Alerts_UnknownPort"]
    ports = _listening(agent)
    if "ports" not in known:
        kept = agent.store.load("ports") if unknown else None
        known["ports"] = kept if isinstance(kept, list) else ports
    new = [port for port in ports if port not in known["ports"]]
    if unknown:
        for protocol, port in new:
            title = "Port %d is open" % port
            text = "Since the last start nothing listened on it (protocol %d)" % protocol
            _alert(agent, "UnknownPort", title, text)
    if new:
        known["new"] += len(new)
        known["ports"] = (known["ports"] + new)[-_PORTS_MAX:]
    limit = agent.settings["Alerts_PortsLimit"]
    if limit and known["new"] > limit:
        text = "More than %d in one interval" % limit
        _alert(agent, "PortsLimit", "Many new listening ports", text)
    if unknown and (new or known.get("kept") is None):
        known["kept"] = True
        agent.store.keep("ports", known["ports"])


def _check_logins(agent):
    limit = agent.settings["Alerts_FailedLoginsLimit"]
    client = agent.client
    failures = client.stats["failures"]
    code = client.last_error.code if client.last_error else None
    if client.connected or not limit or code not in _LOGIN:
        agent.known["failures"] = failures
    elif failures - agent.known.get("failures", 0) >= limit:
        agent.known["failures"] = failures
        text = "%d in a row, the last: %s" % (limit, code)
        _alert(agent, "FailedLoginsLimit", "The hub was not reached securely", text)


async def _check_files(agent):
    import asyncio

    from .baseline import firmware
    from .ports.board_facts import Facts

    changed = ""
    step = firmware.check_deployed(Facts(agent))
    while True:
        try:
            next(step)
        except StopIteration as end:
            changed = end.value
            break
        except (OSError, RuntimeError):
            return  # the baseline says that it cannot be told, and why
        await asyncio.sleep_ms(0)
    if changed:
        text = "Its hash is no longer that in deployed.txt"
        _alert(agent, "ChangedFile", "Changed: " + changed, text)
