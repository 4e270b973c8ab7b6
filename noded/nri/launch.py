"""Plugins that are installed on the node: noded starts them, each with a socket that is connected already."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import trio

from noded.nri.names import parse_file_name

log = structlog.get_logger(__name__)

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONFIG_LIMIT_BYTES: Final = 1 << 20
_WASM: Final = b"\0asm"
_STOP_SECONDS: Final = 2.0  # from the end of its socket to SIGKILL


@dataclass(frozen=True, slots=True)
class Installed:
    """A plugin's program and its configuration."""

    index: str
    name: str
    path: Path
    config: str


def find_installed(plugin_dir: Path, config_dir: Path) -> list[Installed]:
    """The plugins of the node in the order of their names. Blocks; never raises.

    What cannot be used is logged: one bad file must not keep the node from working.
    """
    found = []
    try:
        entries = sorted(plugin_dir.iterdir())
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.error("NRI plugins not looked for", directory=str(plugin_dir), error=error.strerror)
        return []
    for path in entries:
        try:
            if not path.is_file() or not os.access(path, os.X_OK):
                continue
            index, name = parse_file_name(path.name)
            with path.open("rb") as file:
                if file.read(len(_WASM)) == _WASM:
                    raise ValueError("noded runs no WebAssembly plugins")
            found.append(Installed(index, name, path, _config(config_dir, index, name)))
        except (OSError, ValueError) as error:
            log.error("NRI plugin not started", path=str(path), error=str(error))
    return found


def _config(directory: Path, index: str, name: str) -> str:
    for path in (directory / f"{index}-{name}.conf", directory / f"{name}.conf"):
        with suppress(FileNotFoundError), path.open("rb") as file:
            data = file.read(_CONFIG_LIMIT_BYTES + 1)
            if len(data) > _CONFIG_LIMIT_BYTES:
                raise ValueError(f"{path} is larger than {_CONFIG_LIMIT_BYTES} bytes")
            return data.decode()
    return ""


async def start(plugin: Installed) -> tuple[trio.Process, trio.SocketStream]:
    """Start a plugin; return its process and noded's end of its socket.

    Raises: OSError when it cannot be run.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await trio.lowlevel.open_process(
                [str(plugin.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={
                    "PATH": _PATH,
                    "NRI_PLUGIN_NAME": plugin.name,
                    "NRI_PLUGIN_IDX": plugin.index,
                    "NRI_PLUGIN_SOCKET": str(theirs.fileno()),
                },
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    return process, trio.SocketStream(trio.socket.from_stdlib_socket(ours))


async def stop(process: trio.Process) -> None:
    """Wait for a plugin whose socket is closed; kill it when it does not end by itself."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(_STOP_SECONDS):
            await process.wait()
            return
        process.kill()
        with trio.move_on_after(_STOP_SECONDS):
            await process.wait()
