"""A Debian guest under QEMU: its disk, its machine, and the way in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.support.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
KEPT = REPOSITORY / "build" / "vm"
QEMU = "qemu-system-x86_64"
AGENT_PORT = 1024
READY = "noded-vm-agent ready "
IMAGE_SECONDS = 1800
# A guest without hardware virtualisation is some twenty times slower, on a busy machine a hundred times.
BOOT_SECONDS = 1200.0
RUN_SECONDS = 900.0
MEMORY_MIB = 2048
# QEMU 7.2 emulates AVX, BMI and CMPXCHG16B with wrong flags now and then, and lets one processor run
# code that another is patching: kernels die of both. One plain processor is sound.
MACHINE = {
    "kvm": ("-cpu", "max,arch-capabilities=off", "-smp", "2"),
    "tcg": ("-cpu", "Nehalem,cx16=off", "-smp", "1"),
}
KERNEL = (
    "root=/dev/vda rw console=ttyS0 systemd.show_status=false hugepages=32 panic=-1 net.ifnames=0 "
    "mitigations=off quiet"
)


def missing() -> str:
    """What a guest lacks on this machine, "" if nothing."""
    if os.geteuid() != 0:
        return "needs root: debootstrap makes the guest's disk"
    wanted = {QEMU: "qemu-system-x86", "debootstrap": "debootstrap", "mkfs.ext4": "e2fsprogs"}
    packages = [package for program, package in wanted.items() if shutil.which(program) is None]
    return f"not installed: apt-get install {' '.join(packages)}" if packages else ""


def image() -> Path:
    """The directory with disk, vmlinuz and initrd; made when its recipe has changed."""
    digest = hashlib.sha256()
    for path in (HERE / "image.sh", *sorted((HERE / "guest" / "etc").rglob("*"))):
        if path.is_file():
            digest.update(f"{path.relative_to(HERE)}\n".encode() + path.read_bytes())
    digest.update(repr([os.environ.get(name) for name in ("VM_SUITE", "VM_MIRROR")]).encode())
    directory = KEPT / digest.hexdigest()[:16]
    if not (directory / "disk").exists():
        started = time.monotonic()
        say(f"making the guest's disk in {directory}")
        directory.mkdir(parents=True, exist_ok=True)
        log = directory / "image.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [HERE / "image.sh", directory], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, timeout=IMAGE_SECONDS, check=False,
            )  # fmt: skip
        assert done.returncode == 0, f"{log}: {log.read_text(errors='replace')[-2000:]}"
        say(f"disk made in {time.monotonic() - started:.0f} s")
    return directory


def write_disk(files: Path, target: Path, mebibytes: int) -> Path:
    """A file system with the content of a directory."""
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", files, target, f"{mebibytes}M"], check=True
    )
    return target


def say(text: str) -> None:
    """Progress, past pytest's capture."""
    print(f"vm: {text}", file=sys.__stderr__, flush=True)


class NotStarted(Exception):
    """The guest's machine or its kernel gave up."""


class Guest:
    """A running guest. Its disk is thrown away when it ends, not at a reboot.

    Args:
        payload: makes the second disk, seen at /payload, with agent.py; called when a guest is started.
        directory: for the console and the sockets made here.
        kept: attach to the guest that an earlier run left in this directory, and leave this one there.
    """

    def __init__(self, payload: Callable[[], Path], directory: Path, *, kept: bool = False) -> None:
        self.attached = False
        self.boot_id = ""
        self._directory = directory
        self._kept = kept
        self._console_path = directory / "console.log"
        self._state_path = directory / "guest.json"
        self._boots: queue.Queue[str] = queue.Queue()
        self._forwards: list[socket.socket] = []
        self._sockets = Path(tempfile.mkdtemp(prefix="noded-vm-"))  # short, as paths of sockets must be
        if kept and self._attach():
            return
        self._port = free_port()
        base, disk = image(), payload()
        for accelerator in _accelerators():
            self._process_id = self._start(accelerator, base, disk)
            try:
                self._listen_to_console()
                self.wait_booted()
                break
            except BaseException as error:
                self._kill()
                if accelerator == "tcg" or not isinstance(error, NotStarted):
                    raise
                say(f"{accelerator} does not work here, now without it")
        if kept:
            say(f"this guest is kept: kill {self._process_id} ends it")
            state = {"process_id": self._process_id, "port": self._port}
            self._state_path.write_text(json.dumps(state))

    def _start(self, accelerator: str, base: Path, payload: Path) -> int:
        console = self._directory / "console.sock"
        console.unlink(missing_ok=True)
        serial = f"socket,id=console,path={console},server=on,wait=on,logfile={self._console_path}"
        with (self._directory / "qemu.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    QEMU, "-nodefaults", "-no-user-config", "-display", "none",
                    "-machine", "q35", "-accel", accelerator, *MACHINE[accelerator],
                    "-m", str(MEMORY_MIB),
                    "-kernel", base / "vmlinuz", "-initrd", base / "initrd", "-append", KERNEL,
                    "-drive", f"file={base / 'disk'},format=raw,if=virtio,snapshot=on,cache=unsafe",
                    "-drive", f"file={payload},format=raw,if=virtio,readonly=on",
                    "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:{AGENT_PORT}",
                    "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci",
                    "-chardev", serial, "-serial", "chardev:console",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self._directory)}, start_new_session=self._kept,
            )  # fmt: skip
        threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie answers for it
        return process.pid

    def _attach(self) -> bool:
        try:
            state = json.loads(self._state_path.read_text())
            command = Path(f"/proc/{state['process_id']}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False
        if os.fsencode(self._directory) not in command:
            return False
        self._process_id, self._port = state["process_id"], state["port"]
        self._listen_to_console()
        self.attached = True
        self.boot_id = self.run("cat", "/proc/sys/kernel/random/boot_id").strip()
        say(f"attached to the guest of process {self._process_id}")
        return True

    def _listen_to_console(self) -> None:
        console = socket.socket(socket.AF_UNIX)
        console.settimeout(30)
        deadline = time.monotonic() + 30
        while True:
            try:
                console.connect(str(self._directory / "console.sock"))
                break
            except TimeoutError:
                raise NotStarted("another run has attached to this guest: wait for its end") from None
            except OSError:
                if time.monotonic() > deadline or not Path(f"/proc/{self._process_id}").exists():
                    log = (self._directory / "qemu.log").read_text(errors="replace")
                    raise NotStarted(f"{QEMU} has not started: {log}") from None
                time.sleep(0.05)
        console.settimeout(None)
        threading.Thread(target=self._read_console, args=(console.makefile("rb"),), daemon=True).start()

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off, as a power cut does, unless it is kept."""
        for listener in self._forwards:
            listener.close()
        shutil.rmtree(self._sockets, ignore_errors=True)
        if not self._kept:
            self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process_id, signal.SIGKILL)

    def console(self) -> str:
        """Everything that the guest has printed on its serial port."""
        return self._console_path.read_text(errors="replace")

    def _read_console(self, output: IO[bytes]) -> None:
        for line in output:
            text = line.decode(errors="replace").strip()
            if READY in text:
                self._boots.put(text.partition(READY)[2])
            elif "Kernel panic" in text:
                break
        self._boots.put("")

    def wait_booted(self) -> None:
        """Wait until the agent of the next boot answers."""
        started = time.monotonic()
        try:
            self.boot_id = self._boots.get(timeout=BOOT_SECONDS)
        except queue.Empty:
            self.boot_id = ""
        if not self.boot_id:
            raise NotStarted(f"the guest has not started:\n{self.console()[-3000:]}")
        state = self.run("systemctl", "is-system-running", "--wait", status=None).strip()
        say(f"guest up in {time.monotonic() - started:.0f} s, system {state}")

    def reboot(self) -> None:
        """Restart the guest in good order and wait until it is back."""
        before = self.boot_id
        self.run("systemctl", "reboot", "--no-block")
        self.wait_booted()
        assert self.boot_id != before

    @contextlib.contextmanager
    def _request(self, patience: float, **request: object) -> Iterator[tuple[socket.socket, IO[bytes]]]:
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=patience) as connection,
            connection.makefile("rb") as answers,
        ):
            connection.sendall(json.dumps(request).encode() + b"\n")
            yield connection, answers

    def run(self, *command: str, status: int | None = 0, seconds: float = RUN_SECONDS) -> str:
        """Run a program in the guest; return both its outputs."""
        with self._request(seconds + 10, do="run", command=command, seconds=seconds) as (_, answers):
            answer = _answer(answers)
        assert status is None or answer["status"] == status, f"{command}:\n{answer}"
        return str(answer["output"])

    def shell(
        self, script: str, *arguments: str, status: int | None = 0, seconds: float = RUN_SECONDS
    ) -> str:
        """Run a script of sh that ends at its first failure."""
        return self.run("sh", "-ec", script, "sh", *arguments, status=status, seconds=seconds)

    def read(self, path: str) -> str:
        """A text file of the guest."""
        return self.run("cat", path)

    def write(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """Write a file in the guest."""
        content = content.encode() if isinstance(content, str) else content
        with self._request(60, do="put", path=path, size=len(content), mode=mode) as (connection, answers):
            connection.sendall(content)
            _answer(answers)

    def forward(self, path: str) -> Path:
        """A unix socket here whose connections end at that one in the guest."""
        local = self._sockets / f"{len(self._forwards)}.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(local))
        listener.listen()
        self._forwards.append(listener)
        threading.Thread(target=self._accept, args=(listener, path), daemon=True).start()
        return local

    def _accept(self, listener: socket.socket, path: str) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(connection, path), daemon=True).start()

    def _carry(self, connection: socket.socket, path: str) -> None:
        with (
            connection,
            contextlib.suppress(OSError, AssertionError),
            self._request(60, do="connect", path=path) as (other, answers),
        ):
            _answer(answers)
            other.settimeout(None)
            back = threading.Thread(target=_pump, args=(answers, connection), daemon=True)
            back.start()
            while block := connection.recv(65536):
                other.sendall(block)
            other.shutdown(socket.SHUT_WR)
            back.join()


def _pump(source: IO[bytes], target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while block := source.read1(65536):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def _answer(answers: IO[bytes]) -> dict[str, object]:
    line = answers.readline()
    assert line, "the guest's agent has hung up"
    answer: dict[str, object] = json.loads(line)
    assert "error" not in answer, answer["error"]
    return answer


def _accelerators() -> list[str]:
    """Hardware virtualisation first, where it is offered: a nested one may fail all the same."""
    if chosen := os.environ.get("VM_ACCEL"):
        return [chosen]
    return ["kvm", "tcg"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["tcg"]
