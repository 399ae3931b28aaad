"""Device side of test_baseline.py: what the Baseline collector makes of a prepared file system.

micropython render_baseline.py FORM ROOT   Prints one message as a JSON line.
"""

import asyncio
import sys

from hub_client import Client
from vedette import messages, ports
from vedette.agent import Agent
from vedette.outbox import Outbox
from vedette.ports.linux_facts import Facts
from vedette.store import Store


async def main(form, root):
    ports.facts = lambda agent: Facts(agent, root)
    agent = Agent(Client(), False, False, Store("/nonexistent"), Outbox(16384))
    agent.settings.apply({"Message_Format": form})
    agent.since["Baseline"] = 0
    await agent.collect("Baseline")
    agent.outbox.stamp()
    chosen = [(offset, 0) for offset in agent.outbox.entries()]
    for piece in messages.message(agent.outbox, chosen, agent.sender.agent_id):
        print(piece if isinstance(piece, str) else str(piece, "utf-8"), end="")
    print()


asyncio.run(main(*sys.argv[1:]))
