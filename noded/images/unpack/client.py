"""The daemon's side of the unpack zygote."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import structlog
import trio

from noded.errors import DataLoss, Internal, InvalidArgument, NodedError, ResourceExhausted, Unavailable
from noded.host.processes import ProcessIdentity, kill_identity
from noded.host.stalls import wait_stalled
from noded.images.unpack import faults
from noded.images.unpack.limits import UnpackLimits, UnpackReport, worker_count
from noded.images.unpack.protocol import READY, STATUS

log = structlog.get_logger(__name__)

_BOOT = """
import sys
sys.path += sys.argv[2:]
from noded.images.unpack.zygote import main
main(int(sys.argv[1]))
"""
_START_SECONDS = 30.0  # imports from a cold, busy disk
_IDLE_SECONDS = 60.0  # the pulls of a node's pods come together; a start takes 50 ms
_KILL_SECONDS = 10.0  # a child in an uninterruptible write may linger
_MAX_REPORT_BYTES = 128 << 20  # 16 MiB of paths, each byte escaped at worst
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE)


class ZygoteDied(Unavailable):
    """The unpack process ended while it worked: another try with an empty destination may succeed."""


class Unpacker:
    """Extracts layers in forked children of one zygote process.

    `async with Unpacker() as unpacker` or `start` and `aclose`. The zygote is started again when it
    has died, or was ended by `end_idle`.

    Args:
        workers: layers extracted at once; see `worker_count`.
        idle_seconds: for how long a zygote without work is kept.
        stalled_seconds: how long a signal may keep a zygote stopped before it is continued, and when
            stopped again killed; 0 = for ever.
    """

    def __init__(
        self, workers: int = 0, idle_seconds: float = _IDLE_SECONDS, stalled_seconds: float = 0.0
    ) -> None:
        self._idle_seconds = idle_seconds
        self._stalled_seconds = stalled_seconds
        self._jobs = 0
        self._job_ended = trio.Event()
        self._slots = trio.CapacityLimiter(worker_count(workers))
        self._starting = trio.Lock()
        self._sending = trio.Lock()
        self._closed = False
        self._process: trio.Process | None = None
        self._control: trio.socket.SocketType | None = None

    async def __aenter__(self) -> Unpacker:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def pid(self) -> int:
        """Process id of the zygote, 0 = none."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the zygote, if it does not run.

        Raises: Unavailable when it cannot start.
        Cancellation: safe; a zygote half started is ended.
        """
        self._closed = False
        await self._ensure_started()

    async def _ensure_started(self) -> None:
        async with self._starting:
            if self._closed:
                raise ZygoteDied("the unpack process has been stopped")
            if self._control is None:
                await self._start()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            control = trio.socket.from_stdlib_socket(ours)
            process: trio.Process | None = None
            started = False
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), *_import_paths()],
                    pass_fds=[theirs.fileno()],
                    stdin=None,
                    env={"LANG": "C.UTF-8"},
                    cwd="/",
                    start_new_session=True,
                )
                theirs.close()
                with trio.fail_after(_START_SECONDS):
                    answer = await control.recv(len(READY))
            except (OSError, trio.TooSlowError) as error:
                raise Unavailable(f"cannot start the unpack process {sys.executable}: {error}") from None
            else:
                if answer != READY:
                    raise Unavailable("the unpack process ended at its start: its message is in the log")
                self._process, self._control = process, control
                started = True
            finally:
                if not started:
                    control.close()
                    if process is not None:
                        await _end(process)
        log.debug("unpack zygote started", pid=self.pid)

    async def end_idle(self) -> NoReturn:
        """A service: end the zygote, which takes 4 MB, when it has had no work for a while."""
        while True:
            await self._job_ended.wait()
            self._job_ended = trio.Event()
            with trio.move_on_after(self._idle_seconds):
                await self._job_ended.wait()
                continue
            async with self._sending:  # nobody hands over a layer meanwhile
                if not self._jobs:
                    await self._stop()

    async def aclose(self) -> None:
        """End the zygote and whatever it extracts. Idempotent."""
        self._closed = True
        await self._stop()

    async def _stop(self) -> None:
        process, control = self._process, self._control
        self._process = self._control = None
        if control is not None:
            control.close()
        if process is not None:
            await _end(process)

    async def unpack(
        self,
        source_fd: int,
        destination: Path,
        media_type: str,
        diff_id: str,
        limits: UnpackLimits | None = None,
    ) -> UnpackReport:
        """Extract the blob that `source_fd` reads into the empty directory `destination`.

        The compression is told from the bytes. At success all of `source_fd` has been read: a pipe's
        writer sees no EPIPE. `trusted.*` attributes and implied directories of the report are left to
        the caller.

        Args:
            source_fd: a file at its start, or a pipe; stays open and the caller's.
            media_type: only used to refuse what is not a tar.
            diff_id: `sha256:...` of the uncompressed stream, "" = do not check.

        Raises:
            DataLoss: the blob is damaged, truncated, or not the one that `diff_id` names.
            InvalidArgument: the layer asks for something forbidden or breaks a limit; names the entry.
            ResourceExhausted: disk, inodes or memory.
            ZygoteDied: try again with an empty destination.

        Cancellation: kills the child and waits for its end; the destination is half written.
        """
        layer = diff_id or "layer"
        if "tar" not in media_type or media_type.endswith("+encrypted"):
            raise InvalidArgument(f"layer {layer} has media type {media_type!r}: noded unpacks tars only")
        if diff_id and not diff_id.startswith("sha256:"):
            raise InvalidArgument(f"layer {layer}: its diff ID is not a sha256 digest")
        async with self._slots, self._job():
            answer = await self._run(source_fd, destination, limits or UnpackLimits(), layer)
        if "fault" in answer:
            raise _error(answer, layer)
        for paths in ("opaque", "implied"):
            answer[paths] = tuple(answer[paths])
        report = UnpackReport(**answer)
        if diff_id and report.diff_id != diff_id:
            raise DataLoss(f"layer {diff_id} is damaged: uncompressed it has digest {report.diff_id}")
        return report

    @asynccontextmanager
    async def _job(self) -> AsyncIterator[None]:
        self._jobs += 1
        try:
            yield
        finally:
            self._jobs -= 1
            self._job_ended.set()

    async def _run(self, source: int, destination: Path, limits: UnpackLimits, layer: str) -> dict[str, Any]:
        directory = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life = trio.socket.from_stdlib_socket(ours)
        report = trio.lowlevel.FdStream(read_end)
        ended = False
        try:
            try:
                message = json.dumps(limits._asdict()).encode()
                process = await self._send(message, [source, directory, write_end, theirs.fileno()])
            finally:
                os.close(directory)
                os.close(write_end)
                theirs.close()
            data = await self._read_watched(report, process)
            ended = True
            return await self._answer(data, life, process, layer)
        finally:
            with trio.move_on_after(_KILL_SECONDS, shield=True):
                if not ended:
                    life.shutdown(socket.SHUT_WR)  # the zygote kills the child, whose end closes the pipe
                    await _read_all(report)
                await report.aclose()
            life.close()

    async def _read_watched(self, report: trio.lowlevel.FdStream, process: trio.Process) -> bytes:
        """All of a report, or what there is of it when its zygote was given up."""
        failure: Exception | None = None
        data = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_stalled, process)
            try:
                data = await _read_all(report)
            except Exception as error:  # as it is, not in a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return data

    async def _end_stalled(self, process: trio.Process) -> None:
        """Kill a zygote that signals keep stopped: a pull has no deadline, and would wait for ever."""
        zygote = ProcessIdentity.of(process.pid)
        if zygote is not None:
            await wait_stalled(zygote, self._stalled_seconds, unpacks="layers")
            kill_identity(zygote)

    async def _send(self, message: bytes, fds: list[int]) -> trio.Process:
        """Hand a job to the zygote, or to its successor if it has died."""
        async with self._sending:
            while True:
                await self._ensure_started()
                process, control = self._process, self._control
                if process is None or control is None:
                    continue  # another task found it dead meanwhile
                await trio.lowlevel.wait_writable(control.fileno())
                try:
                    with socket.socket(fileno=os.dup(control.fileno())) as sender:
                        sender.setblocking(False)
                        socket.send_fds(sender, [message], fds)
                    return process
                except BlockingIOError:
                    continue
                except OSError:
                    await self._bury(process)

    async def _answer(
        self, data: bytes, life: trio.socket.SocketType, process: trio.Process, layer: str
    ) -> dict[str, Any]:
        with trio.move_on_after(_KILL_SECONDS):
            status = await life.recv(STATUS.size)
            if len(status) == STATUS.size:
                code = STATUS.unpack(status)[0]
                if code == 0 and data:
                    answer: dict[str, Any] = json.loads(data)
                    return answer
                raise ZygoteDied(_death(code, layer))
        await self._bury(process)
        raise ZygoteDied(f"the unpack process died while it extracted {layer}: try again")

    async def _bury(self, process: trio.Process) -> None:
        """Forget a zygote that does not answer; the next unpack starts another."""
        if self._process is process:
            log.warning("unpack zygote died", pid=process.pid)
            await self._stop()


def _import_paths() -> list[str]:
    """Where the zygote's imports are: it starts without site packages. The daemon imports none of them."""
    found = (find_spec(name) for name in ("noded", "isal", "zstandard"))
    files = (one.origin for one in found if one is not None and one.origin is not None)
    return list(dict.fromkeys(str(Path(file).resolve().parent.parent) for file in files))


async def _end(process: trio.Process) -> None:
    with trio.move_on_after(_KILL_SECONDS, shield=True):
        process.kill()
        await process.wait()


async def _read_all(stream: trio.lowlevel.FdStream) -> bytes:
    data = bytearray()
    while more := await stream.receive_some():
        data += more
        if len(data) > _MAX_REPORT_BYTES:
            raise Internal(f"the unpack process reports more than {_MAX_REPORT_BYTES} bytes")
    return bytes(data)


def _death(status: int, layer: str) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    hint = " (out of memory?)" if status == -9 else ""
    return f"the process that extracted {layer} {how}{hint}: try again"


def _error(answer: Mapping[str, Any], layer: str) -> NodedError:
    entry = answer["entry"]
    relation = "after entry" if answer.get("after") else "entry"
    # repr escapes what would break a line, or is not UTF-8.
    where = f"layer {layer}, {relation} {entry!r}" if entry else f"layer {layer}"
    text = f"{where}: {answer['message']}"
    match answer["fault"]:
        case faults.CORRUPT:
            return DataLoss(text)
        case faults.REFUSED:
            return InvalidArgument(text)
        case faults.MEMORY:
            return ResourceExhausted(text)
        case faults.SYSTEM if answer["errno"] in _NO_ROOM:
            return ResourceExhausted(f"{text}: free space or inodes on the file system of the image store")
        case faults.SYSTEM:
            return Internal(f"{text} ({errno.errorcode.get(answer['errno'], answer['errno'])})")
        case _:
            return Internal(text)
