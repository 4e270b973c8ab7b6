"""The text that SIGUSR1 asks for."""

from __future__ import annotations

import asyncio

import structlog
import trio

from noded.tracing import stacks


async def waits_for_ever():
    await trio.sleep_forever()


async def works_for_a_call(task_status):
    structlog.contextvars.bind_contextvars(op="abcd1234")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_for_ever)
        task_status.started()


def described_by_a_guest():
    """What a callback of asyncio sees of trio as its guest."""

    async def main():
        loop, root, waiting = asyncio.get_running_loop(), [], trio.Event()
        there, ended = loop.create_future(), loop.create_future()

        async def core():
            root.append(trio.lowlevel.current_root_task())
            async with trio.open_nursery() as nursery:
                await nursery.start(works_for_a_call)
                there.set_result(None)
                await waiting.wait()
                nursery.cancel_scope.cancel()

        trio.lowlevel.start_guest_run(
            core,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=ended.set_result,
        )
        await there
        text = stacks.describe(root[0], asyncio.all_tasks())
        waiting.set()
        await ended
        return text

    return asyncio.run(main())


def test_tasks_are_shown_below_those_that_wait_for_them_with_their_calls():
    lines = described_by_a_guest().splitlines()
    worker = next(line for line in lines if "works_for_a_call op=abcd1234" in line)
    below = lines[lines.index(worker) :]
    child = next(line for line in below if line.endswith("waits_for_ever op=abcd1234"))
    assert len(child) - len(child.lstrip()) > len(worker) - len(worker.lstrip())
    place = "tests/unit/timeline/test_stack_text.py:"
    assert any(place in line and line.endswith(" waits_for_ever") for line in below)


def test_asyncio_tasks_and_threads_are_shown():
    asyncs, _, threads = described_by_a_guest().partition("asyncio tasks\n")[2].partition("\nthreads\n")
    assert asyncs.startswith("  Task-")
    assert "described_by_a_guest.<locals>.main" in asyncs
    assert "  MainThread\n" in threads
    assert "stacks.py" in threads


def test_the_newest_files_are_kept_and_only_root_reads_them(tmp_path):
    async def main():
        for number in range(12):
            stacks.write(tmp_path, f"{number:02}", None)

    asyncio.run(main())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"stacks-{number:02}.txt" for number in range(2, 12)]
    assert (tmp_path / names[0]).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / names[0]).read_text().startswith("trio tasks\n  none\n")
