"""On MicroPython: an application that has the agent use its own hub client.

Arguments: the connection string, and the file of the hub's root. The application counts up in
messages, answers the method `blink`, and when it is sent "stop" it says what it was told.
"""

import asyncio
import json
import sys

import iothub
import vedette


async def main(connection_string, root):
    client = iothub.HubClient(iothub.Credentials.parse(connection_string), ca=[root])
    told = []
    client.on_connection(lambda connected, reason: told.append(connected))
    client.on_desired(lambda desired, version, full: told.append(desired.get("pace")))
    client.on_message(lambda body, properties: told.append(str(body, "utf-8")))
    client.on_method("blink", lambda payload: (200, {"blinked": payload}))
    client.start()
    agent = vedette.start(client=client, journal=False)
    count = 0
    while "stop" not in told:
        await client.send(json.dumps({"count": count}).encode())
        count += 1
        await asyncio.sleep_ms(50)
    await agent.stop()
    assert client.connected  # it is the application's
    await vedette.start(client=client, journal=False).stop()
    await client.send(json.dumps({"count": count, "told": told}).encode())
    await client.stop()


asyncio.run(main(*sys.argv[1:]))
