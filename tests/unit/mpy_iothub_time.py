"""iothub.client over hours, on a clock that jumps to whenever something is due."""

import warp

warp.jumping()

import asyncio  # noqa: E402
import os  # noqa: E402

import iothub.client  # noqa: E402
from iothub import Credentials, HubClient, HubError, clock  # noqa: E402
from iothub.roots import Roots  # noqa: E402
from mpy_iothub_client import TEXT, Bench, Connecting, Hub, refusal  # noqa: E402

_MINUTE = 60


async def test_the_connection_is_replaced_before_its_token_expires():
    async with Bench(token_lifetime=3600) as bench:
        await asyncio.sleep(44 * _MINUTE)
        assert bench.client.stats["connects"] == 1
        await asyncio.sleep(2 * _MINUTE)
        assert bench.client.stats["connects"] == 2 and bench.client.stats["renewals"] == 1
        await asyncio.sleep(46 * _MINUTE)
        assert bench.client.stats["connects"] == 3
        assert bench.ups == [(True, None)] and bench.client.stats["failures"] == 0


async def test_a_hub_that_falls_silent_does_not_hold_up_a_new_connection():
    async with Bench(token_lifetime=86400) as bench:
        bench.hub.stuck = True  # what is sent from now on does not arrive
        sending = asyncio.create_task(refusal(bench.client.send(b"x", timeout=10)))
        bench.client.reconnect()
        await asyncio.sleep(30)
        assert sending.done() and (await sending).code == "timeout"
        bench.hub.stuck = False
        await asyncio.sleep(30)
        assert bench.client.stats["connects"] == 2
    async with Bench(token_lifetime=86400) as bench:
        answer = bench.hub._answer
        bench.hub._answer = lambda *_: None  # and now no answer comes
        sending = asyncio.create_task(bench.client.send(b"x", timeout=60))
        bench.client.reconnect()
        await asyncio.sleep(5)
        bench.hub._answer = answer
        bench.hub.close()
        await asyncio.sleep(5)
        assert sending.done() and bench.client.stats["connects"] == 2


async def test_a_wall_clock_that_jumps_replaces_the_connection():
    real = clock.unix
    try:
        async with Bench() as bench:
            connects = 1
            # what the clock says more than it should, and whether the token is made anew for it
            for error, noticed in ((20, 0), (3600, 1), (3620, 0), (-86400, 1), (0, 1)):
                clock.unix = lambda error=error: real() + error
                await asyncio.sleep(2)
                connects += noticed
                assert bench.client.stats["connects"] == connects, error
                assert bench.client.connected
            assert bench.ups == [(True, None)]
    finally:
        clock.unix = real


async def test_a_device_that_slept_makes_a_new_token():
    unix, uptime = clock.unix, clock.uptime
    try:
        async with Bench() as bench:
            clock.unix = lambda: unix() + 7200
            clock.uptime = lambda: uptime() + 7200
            await asyncio.sleep(2)
            assert bench.client.stats["renewals"] == 1
    finally:
        clock.unix, clock.uptime = unix, uptime


async def test_an_outage_of_long_ago_does_not_count_when_a_connection_is_replaced():
    async with Bench(token_lifetime=3600) as bench:
        bench.client._failures = 9
        bench.hub.error = HubError("unreachable")  # from when the token is renewed
        await asyncio.sleep(45 * _MINUTE + 10)
        bench.hub.error = None
        await asyncio.sleep(10)
        assert bench.client.connected and bench.client.stats["connects"] == 2


class Provisioning:
    """Assigns the same hub each time; counts."""

    def __init__(self):
        self.asked = 0

    async def assign(self, _client):
        self.asked += 1
        return Credentials.parse(TEXT)


async def test_ten_failures_in_a_row_lead_to_provisioning():
    provisioning = Provisioning()
    client = HubClient(None, [], provisioning=provisioning)
    hub = client.session.sock = Hub()
    hub.error = HubError("unreachable")
    client.start()
    try:
        for round_ in range(1, 4):
            while client.stats["failures"] < 10 * round_:
                assert provisioning.asked <= round_
                await asyncio.sleep(1)
            await asyncio.sleep(130)
            assert provisioning.asked == round_ + 1
        hub.error = None
        await client.wait_connected(200)
        await asyncio.sleep(10 * _MINUTE)
        assert client.stats["connects"] == 1
    finally:
        await client.stop()


async def test_a_twin_that_is_refused_for_now_is_asked_for_again_by_one_connection():
    bench = Bench()
    bench.hub.status = 429
    async with bench:
        await asyncio.sleep(15)
        assert not bench.desired
        bench.hub.close()  # while the next question waits
        bench.hub.status = None
        await asyncio.sleep(30)
        assert bench.client.stats["connects"] == 2 and len(bench.desired) == 1
    bench = Bench()
    bench.hub.status = 503
    async with bench:
        await asyncio.sleep(15)
        bench.hub.status = None
        await asyncio.sleep(15)
        assert bench.client.stats["connects"] == 1 and len(bench.desired) == 1


async def test_a_change_that_comes_right_behind_the_twin_is_not_undone_by_it():
    bench = Bench()
    answer = bench.hub._answer_twin

    def answer_and_change(*args):
        bench.hub._answer_twin = answer
        answer(*args)
        bench.hub.patch(5, {"a": 2})
        bench.hub.twin["desired"] = {"a": 2, "$version": 5}

    bench.hub._answer_twin = answer_and_change
    async with bench:
        await asyncio.sleep(15)
        assert bench.desired[-1] == ({"a": 2}, 5, True), bench.desired
        assert bench.client.stats["connects"] == 1


async def test_a_long_outage_ends_within_the_longest_back_off():
    async with Bench() as bench:
        bench.hub.error = HubError("unreachable")
        bench.hub.close()
        sending = asyncio.create_task(bench.client.send(b"kept", timeout=86400))
        began = clock.uptime()
        await asyncio.sleep(6 * 3600)
        failures = bench.client.stats["failures"]
        assert 6 * 3600 // 129 < failures < 6 * 3600 // 64 + 20, failures
        assert (await refusal(bench.client.send(b"late", timeout=5))).code == "timeout"
        bench.hub.error = None
        await sending
        assert clock.uptime() - began < 6 * 3600 + 5 + 129
        assert [body for _, body in bench.hub.published] == [b"kept"]


async def test_a_root_that_waits_is_tried_also_after_a_long_outage():
    with open("root.der.new", "wb") as file:
        file.write(b"\x30")
    bench = Bench()
    connect = Connecting.connect

    async def connect_verified(session, identity, roots):
        if not bench.hub.error and not roots:
            raise HubError("certificate")
        await connect(session, identity, roots)

    Connecting.connect = staticmethod(connect_verified)
    Roots(bench.client, "root.der")
    bench.hub.error = HubError("unreachable")
    bench.client.start()
    try:
        await asyncio.sleep(60 * _MINUTE)
        bench.hub.error = None  # the hub is there again, with a certificate of the new root
        await bench.client.wait_connected(30 * _MINUTE)
        await asyncio.sleep(2)
        assert os.stat("root.der")
    finally:
        Connecting.connect = staticmethod(connect)
        await bench.client.stop()


async def test_a_full_heap_ends_in_a_reconnect():
    async with Bench() as bench:
        client, session = bench.client, bench.client.session
        for where, name, told in (
            (session, "check", True),
            (session, "ask", True),  # the greeting
            (session, "_handle", True),
            (session, "on_tick", True),
            (client, "guard", False),  # while a callback hears of a connection that was lost
            (client, "_lost", False),
        ):
            method = getattr(where, name)
            connects = client.stats["connects"]

            def full(*_, where=where, name=name, method=method):
                setattr(where, name, method)
                raise MemoryError

            setattr(where, name, full)
            if name in ("ask", "guard", "_lost"):
                bench.hub.close()
            elif name == "_handle":
                bench.hub.patch(5, {"a": 2})
            for _ in range(300):
                await asyncio.sleep_ms(500)
                told_now = (False, "memory") in bench.ups
                if client.stats["connects"] > connects and client.connected and told_now == told:
                    break
            assert getattr(where, name) is not full and client.connected, name
            assert ((False, "memory") in bench.ups) == told, (name, bench.ups)
            await client.send(b"after")
            bench.ups.clear()


async def test_a_change_that_the_heap_had_no_room_for_is_asked_for():
    async with Bench() as bench:
        cold = iothub.client.cold

        def full(*_):
            iothub.client.cold = cold
            raise MemoryError

        iothub.client.cold = full
        bench.hub.twin["desired"] = {"a": 2, "$version": 5}
        bench.hub.patch(5, {"a": 2})
        await asyncio.sleep(5)
        assert bench.desired[1:] == [({"a": 2}, 5, True)], bench.desired
        assert bench.client.stats["connects"] == 1


async def test_what_is_asked_for_late_is_served_when_the_heap_was_full():
    create_task = asyncio.create_task

    def full(coroutine):
        raise MemoryError

    async with Bench() as bench:
        late = []
        asyncio.create_task = full
        try:
            bench.client.on_desired(lambda *args: late.append(args))
            bench.client.route("elsewhere/", 0, print)
            await asyncio.sleep_ms(600)
        finally:
            asyncio.create_task = create_task
        assert not late
        await asyncio.sleep_ms(2000)
        assert late and late[-1] == ({"a": 1}, 4, True)
        assert bench.client.connected
