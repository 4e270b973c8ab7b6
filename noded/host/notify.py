"""The service manager's protocol: sd_notify(3) and the watchdog."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

_SEND_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Notifier:
    """Tells the service manager how the daemon is; without one every call does nothing.

    Args:
        address: of its datagram socket, "" = none.
        watchdog_period_seconds: how often to call `watchdog`, half of what the manager allows;
            None = it does not watch.
    """

    address: str = ""
    watchdog_period_seconds: float | None = None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """Read and remove the protocol's variables, so that no child speaks in the daemon's name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
        period = None
        if microseconds.isdigit() and int(microseconds) > 0 and pid == str(os.getpid()):
            period = int(microseconds) / 2e6
        return cls(address, period)

    def ready(self, status: str = "") -> None:
        """The daemon serves, or has finished reloading."""
        self._send({"READY": "1", **({"STATUS": status} if status else {})})

    def reloading(self) -> None:
        """The daemon reads its configuration again; `ready` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send({"RELOADING": "1", "MONOTONIC_USEC": str(now)})

    def stopping(self, status: str = "") -> None:
        """The daemon is on its way out."""
        self._send({"STOPPING": "1", **({"STATUS": status} if status else {})})

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send({"STATUS": text})

    def watchdog(self) -> None:
        """The daemon is alive; call it every `watchdog_period_seconds`."""
        self._send({"WATCHDOG": "1"})

    def extend_timeout(self, seconds: float) -> None:
        """Ask for more time to start, reload or stop."""
        self._send({"EXTEND_TIMEOUT_USEC": str(int(seconds * 1e6))})

    def _send(self, fields: Mapping[str, str]) -> None:
        """Send one datagram. A manager that does not listen must not stop the daemon: log only."""
        if not self.address:
            return
        message = "\n".join(f"{key}={' '.join(value.splitlines())}" for key, value in fields.items())
        target = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
                client.settimeout(_SEND_SECONDS)
                client.sendto(message.encode(), target)
        except OSError as error:
            log.warning("service manager not notified", address=self.address, reason=str(error))
