"""The daemon behind its front: the only place where edge and core are put together, started and stopped.

asyncio runs outermost; trio is its guest in the same thread (see `noded.edge.bridge`). Order of
start, after that of `noded.daemon.start`: streaming socket, engine up to "lists can be served", methods,
readiness. Order of stop: no new calls, calls in flight finish within `drain_seconds`, engine.
Pods are never touched by a stop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import faulthandler
import gc
import os
import signal
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import outcome
import structlog
import trio

from noded import logs, settings
from noded.config import Config
from noded.daemon.guest import Turns
from noded.daemon.start import Front
from noded.edge.bridge import Bridge
from noded.edge.cri.decode_container import container_config_of
from noded.edge.cri.decode_pod import pod_config_of
from noded.edge.methods import all_methods
from noded.edge.metrics_http import MetricsServer, parse_listen
from noded.edge.streaming import StreamingServer
from noded.engine.engine import Decoders, Engine, open_engine
from noded.errors import NodedError
from noded.host import facts as host_facts
from noded.host import processes
from noded.host.notify import Notifier

log = structlog.get_logger(__name__)

_CRASHED = 1
_RELOAD_SECONDS = 120.0  # every changed handler is opened and asked for its features, at the same time
_WATCHDOG_ANSWER_SECONDS = 10.0  # the core must answer a ping within this, or the watchdog starves


class Daemon:
    """One run of the daemon. The front is its caller's to close."""

    def __init__(self, config: Config, config_path: Path | None, front: Front) -> None:
        logs.setup(config.log_level, config.log_format)
        self._front = front
        self._config = config
        self._config_path = config_path
        self._notifier = Notifier.from_environment(os.environ)
        self._bridge = Bridge()
        self._engine: Engine | None = None
        self._core_scope = trio.CancelScope()
        self._root_task: trio.lowlevel.Task | None = None
        self._reloading = asyncio.Event()

    async def run(self) -> int:
        """Start, serve, stop. See the module's text for the order."""
        if self._config.metrics.listen:
            parse_listen(self._config.metrics.listen)
        loop = asyncio.get_running_loop()
        server = self._front.server
        if self._front.problem:
            log.warning("inherited socket differs from the configuration", problem=self._front.problem)
        async with AsyncExitStack() as stack:
            processes.become_subreaper()
            stopping, loaded = asyncio.Event(), loop.create_future()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            loop.add_signal_handler(signal.SIGHUP, self._reloading.set)
            loop.add_signal_handler(signal.SIGUSR1, self._write_stacks)
            # Of the threads at once and from C: it is also there when the loop hangs.
            faulthandler.register(signal.SIGUSR1, chain=True)
            streaming = StreamingServer(self._config.streaming, self._bridge)
            streaming.bind()
            stack.push_async_callback(streaming.close)
            core = self._start_core(loop, loaded)
            begun: set[asyncio.Future[Any]] = {loaded, core}
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            if core.done():
                core.result().unwrap()  # raises what kept the engine from starting
                return _CRASHED
            stack.push_async_callback(self._end_core, core)  # whatever else of the start fails
            assert self._engine is not None
            streaming.start(self._engine.streams)
            metrics = MetricsServer(
                self._config.metrics.listen, self._engine.metrics.text, self._engine.metrics.lag
            )
            stack.push_async_callback(metrics.close)
            try:
                await metrics.start()
            except NodedError as error:  # pods matter more than being watched
                log.error("metrics are not served", error=str(error))
            if self._config.compat.cadvisor:
                await self._serve_cadvisor(stack, self._engine)
            methods = all_methods(self._bridge, self._engine, streaming)
            server.serve(methods, observe=self._engine.metrics.rpc, record=self._engine.recorder.begin)
            if not stopping.is_set():  # told to end while it started: nobody is to count on it
                self._notifier.ready("serving")
            log.info(
                "serving",
                socket=str(self._front.socket),
                pid=os.getpid(),
                lists_answered_before=server.answered_early,
            )
            gc.collect()
            gc.freeze()  # what start-up made lives as long as the daemon: keep it out of collections
            watchdog = asyncio.ensure_future(self._feed_watchdog())
            reloads = asyncio.ensure_future(self._reload_on_demand())
            stop = asyncio.ensure_future(stopping.wait())
            ends: set[asyncio.Future[Any]] = {stop, core}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            watchdog.cancel()
            reloads.cancel()
            status = await self._stop(streaming, core, crashed=core.done())
            stop.cancel()
        return status

    async def _serve_cadvisor(self, stack: AsyncExitStack, engine: Engine) -> None:
        from noded.edge.cadvisor_http import CadvisorServer

        server = CadvisorServer(self._config, engine.sandboxes, engine.containers)
        stack.push_async_callback(server.close)
        try:
            await server.start()
        except NodedError as error:  # pods matter more than their statistics
            log.error("cAdvisor is not served", error=str(error))

    # the core

    def _start_core(
        self, loop: asyncio.AbstractEventLoop, loaded: asyncio.Future[None]
    ) -> asyncio.Future[outcome.Outcome[None]]:
        ended: asyncio.Future[outcome.Outcome[None]] = loop.create_future()
        turns = Turns(loop, lambda error: ended.set_result(outcome.Error(error)))
        trio.lowlevel.start_guest_run(
            self._core,
            loaded,
            run_sync_soon_threadsafe=turns.soon_from_any_thread,
            run_sync_soon_not_threadsafe=turns.soon,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        return ended

    async def _core(self, loaded: asyncio.Future[None]) -> None:
        """The root of all trio tasks."""
        self._root_task = trio.lowlevel.current_root_task()
        ready = trio.Event()
        facts = await trio.to_thread.run_sync(host_facts.collect, self._config)
        decoders = Decoders(pod=pod_config_of, container=container_config_of)
        async with (
            open_engine(self._config, facts, decoders, ready, self._front.database) as engine,
            trio.open_nursery() as calls,
        ):
            self._engine = engine
            self._bridge.open(calls, ready)
            with self._core_scope:
                loaded.set_result(None)
                await trio.sleep_forever()
            self._bridge.close("noded is stopping: try again after its restart")
            calls.cancel_scope.cancel()

    # the end

    async def _stop(
        self,
        streaming: StreamingServer,
        core: asyncio.Future[outcome.Outcome[None]],
        *,
        crashed: bool,
    ) -> int:
        server = self._front.server
        self._notifier.stopping()
        if crashed:
            self._bridge.close("noded failed and restarts: try again in a moment")
            await streaming.close()
            await server.drain(0.0)
            with suppress(trio.Cancelled):
                _report(core.result())
            return _CRASHED
        log.info("stopping; pods go on running", grace_seconds=self._config.drain_seconds)
        if not await server.drain(self._config.drain_seconds):
            log.warning("some calls did not finish in time and were cancelled")
        await streaming.close()
        result = await self._end_core(core)
        if isinstance(result, outcome.Error):
            _report(result)
            return _CRASHED
        log.info("stopped")
        return 0

    async def _end_core(self, core: asyncio.Future[outcome.Outcome[None]]) -> outcome.Outcome[None]:
        """Let the core close its stores and its helpers; returns at once when it has ended."""
        self._core_scope.cancel()
        return await core

    # signals and the watchdog

    def _write_stacks(self) -> None:
        """SIGUSR1. The loop calls this between steps of the core, so no trio task is running."""
        from noded.tracing import stacks

        name = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f".{time.time_ns() // 1000 % 1_000_000:06}Z"
        try:
            path = stacks.write(self._config.state, name, self._root_task)
        except Exception as error:  # a look at the daemon must not end it
            log.exception("stacks not written", error=str(error))
        else:
            log.warning("stacks written", path=str(path))

    async def _reload_on_demand(self) -> None:
        """SIGHUP, one after the other; several during one reload are one more."""
        while True:
            await self._reloading.wait()
            self._reloading.clear()
            self._notifier.reloading()
            try:
                await self._reload()
            except NodedError as error:
                log.error("configuration not reloaded, the old one stays in force", error=str(error))
            except Exception:
                log.exception("reloading the configuration failed")
            self._notifier.ready("serving")

    async def _reload(self) -> None:
        """Take what can be changed while running.

        Raises: NodedError for a configuration that cannot be used; then nothing has changed.
        """
        assert self._engine is not None
        config = settings.load(self._config_path)
        changed = settings.changed_keys(self._config, config)
        if changed & {"runtimes", "default_runtime"}:
            await self._bridge.call(self._engine.reload.apply, config, deadline_seconds=_RELOAD_SECONDS)
        await self._bridge.call(self._engine.images.read_stores, deadline_seconds=_RELOAD_SECONDS)
        logs.set_level(config.log_level)
        if fixed := sorted(changed - settings.RELOADABLE):
            log.warning("restart noded for these changed keys to take effect", keys=fixed)
        log.info("configuration reloaded", keys=sorted(changed & settings.RELOADABLE))
        taken = {key: getattr(config, key) for key in settings.RELOADABLE}
        self._config = dataclasses.replace(self._config, **taken)

    async def _feed_watchdog(self) -> None:
        """Tell systemd that both loops turn, as long as they do."""
        period = self._notifier.watchdog_period_seconds
        while period is not None:
            await asyncio.sleep(period)
            try:
                await self._bridge.call(trio.lowlevel.checkpoint, deadline_seconds=_WATCHDOG_ANSWER_SECONDS)
            except NodedError as error:
                log.error("the core does not answer, the watchdog is left to bite", error=str(error))
                continue
            self._notifier.watchdog()


def _report(result: outcome.Outcome[None]) -> None:
    if isinstance(result, outcome.Error):
        log.critical("the core failed", exc_info=result.error)
