from __future__ import annotations

import trio
import trio.testing

from noded.network.gate import Gate


def test_many_pass_at_once_and_the_gate_closes_only_when_all_have_gone():
    async def main():
        gate, order = Gate(), []

        async def visitor(name, leave):
            async with gate.passing():
                order.append(f"{name} in")
                await leave.wait()
                order.append(f"{name} out")

        async def closer():
            await gate.quiet()
            with gate.closed():
                order.append("closed")
                await trio.testing.wait_all_tasks_blocked()
            order.append("open")

        first, second, third = trio.Event(), trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor, "a", first)
            nursery.start_soon(visitor, "b", second)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(closer)
            await trio.testing.wait_all_tasks_blocked()
            first.set()
            await trio.testing.wait_all_tasks_blocked()
            # One that comes while the closer waits is not held up by it.
            nursery.start_soon(visitor, "c", third)
            await trio.testing.wait_all_tasks_blocked()
            assert "c in" in order
            second.set()
            third.set()
        assert order[-2:] == ["closed", "open"]
        assert order.index("closed") > order.index("c out")

    trio.run(main)


def test_who_comes_while_the_gate_is_closed_waits_and_then_passes():
    async def main():
        gate, passed = Gate(), trio.Event()

        async def visitor():
            async with gate.passing():
                passed.set()

        async with trio.open_nursery() as nursery:
            await gate.quiet()
            with gate.closed():
                nursery.start_soon(visitor)
                await trio.testing.wait_all_tasks_blocked()
                assert not passed.is_set()
            await passed.wait()

    trio.run(main)


def test_a_cancelled_visitor_or_closer_leaves_the_gate_usable():
    async def main():
        gate = Gate()
        with trio.move_on_after(0):
            async with gate.passing():
                await trio.sleep_forever()
        with trio.move_on_after(0):
            with gate.closed():
                await trio.sleep_forever()
        with trio.fail_after(5):
            await gate.quiet()
            async with gate.passing():
                pass

    trio.run(main)
