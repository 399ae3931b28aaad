"""Device side of test_messages.py: every event but the flows, as the agent's own code renders it.

micropython render_events.py FORM   Prints one message as a JSON line.
"""

import asyncio
import sys

from hub_client import Client
from vedette import alerts, lifecycle, messages, starts
from vedette.agent import Agent
from vedette.outbox import Outbox
from vedette.store import Store


class Evidence:
    """A store that has kept how an earlier start ended."""

    def load(self, name):
        return {"count": 3, "error": "KeyError", "where": "app.py:3 main"}

    def keep(self, name, document):
        pass


async def main(form):
    client = Client()
    client.connected = False
    agent = Agent(client, False, False, Store("/nonexistent"), Outbox(16384))
    agent.settings.apply({"Message_Format": form})
    lifecycle.begin(agent)
    for name in ("SystemInformation", "Heartbeat", "Statistics"):
        await agent.collect(name)
    alerts.tell(agent, "SelfTest", "A title", "A description", "Low")
    agent.complain("Some_Key", 'a "reason"')
    agent.store = Evidence()
    starts.report(agent, True)
    agent.outbox.stamp()
    chosen = [(offset, 0) for offset in agent.outbox.entries()]
    for piece in messages.message(agent.outbox, chosen, agent.sender.agent_id):
        print(piece if isinstance(piece, str) else str(piece, "utf-8"), end="")
    print()


asyncio.run(main(sys.argv[1]))
