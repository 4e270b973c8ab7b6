"""The small process that children are forked from.

It is single-threaded, so forking is safe and the parent-death signal of a child means what it says.
It talks to the daemon over a SOCK_SEQPACKET socket, one message per layer:

    JSON limits  +  four descriptors: blob (file or pipe), destination directory, report pipe, life socket

The child writes its report to the pipe. The life socket is the zygote's: when the daemon shuts its end
down, the child is killed; when the child has ended, its wait status is sent on it. The end of the
control socket, which is also the daemon's death, ends everything.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket

from noded.images.unpack import child
from noded.images.unpack.confine import set_name
from noded.images.unpack.limits import UnpackLimits
from noded.images.unpack.protocol import DESCRIPTORS, READY, STATUS

_MAX_MESSAGE_BYTES = 4096


class Zygote:
    """The event loop over the control socket, the children and their life sockets."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
        self._lives: dict[int, int] = {}  # fd of a life socket -> pidfd

    def run(self) -> None:
        """Serve until the daemon closes the control socket."""
        self._control.send(READY)
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._reap(fd)
                elif fd in self._lives:
                    signal.pidfd_send_signal(self._lives[fd], signal.SIGKILL)
                    self._poll.unregister(fd)
                elif fd == self._control.fileno() and not self._receive():
                    return

    def _receive(self) -> bool:
        try:
            message, fds, _, _ = socket.recv_fds(self._control, _MAX_MESSAGE_BYTES, DESCRIPTORS)
        except ConnectionError:
            return False
        try:
            if not message:
                return False
            if len(fds) == DESCRIPTORS:
                self._fork(UnpackLimits(**json.loads(message)), *fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fork(self, limits: UnpackLimits, source: int, destination: int, report: int, life: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            return  # no process or memory left: the daemon sees both channels end without an answer
        if pid == 0:
            try:
                self._control.close()
                for pidfd, (_, other) in self._children.items():
                    os.close(pidfd)
                    other.close()
                os.close(life)
                child.run(parent, source, destination, report, limits)
            finally:
                os._exit(0)
        pidfd = os.pidfd_open(pid)
        ours = socket.socket(fileno=os.dup(life))
        self._children[pidfd] = pid, ours
        self._lives[ours.fileno()] = pidfd
        self._poll.register(pidfd, select.POLLIN)
        self._poll.register(ours, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, life = self._children.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        del self._lives[life.fileno()]
        with contextlib.suppress(KeyError):
            self._poll.unregister(life)  # not there after a kill
        with contextlib.suppress(OSError):  # the daemon may not wait for it any more
            message = STATUS.pack(os.waitstatus_to_exitcode(status))
            life.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        life.close()


def main(descriptor: int) -> None:
    """Entry point: `descriptor` is the control socket."""
    set_name(b"noded-unpack")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's ^C is for the daemon, which ends us
    os.chdir("/")
    gc.collect()
    gc.disable()  # children make no cycles worth collecting, and collecting would unshare their pages
    gc.freeze()
    Zygote(socket.socket(fileno=descriptor)).run()
