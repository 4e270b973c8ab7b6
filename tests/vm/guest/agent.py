"""Runs in the guest: executes commands, stores files, connects to unix sockets, for one test at a time.

Each TCP connection carries one request, a line of JSON, then its answer:

    {"do": "run", "command": [...], "seconds": 60}     -> {"status": 0, "output": "..."}
    {"do": "put", "path": "...", "size": N} + N bytes  -> {}
    {"do": "connect", "path": "/run/x.sock"}           -> {}, then the bytes of both directions

What cannot be done is answered with {"error": "..."}. Only the Python standard library is here.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import socketserver
import subprocess
import threading

PORT = 1024  # its only users are behind QEMU's user network
BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")


class Request(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        if not line:
            return
        request = json.loads(line)
        try:
            getattr(self, f"do_{request.pop('do')}")(**request)
        except (OSError, subprocess.SubprocessError, TypeError, AttributeError) as error:
            self.answer(error=f"{type(error).__name__}: {error}")

    def answer(self, **values):
        self.wfile.write(json.dumps(values).encode() + b"\n")
        self.wfile.flush()

    def do_run(self, command, seconds):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            raise
        self.answer(status=process.returncode, output=output.decode(errors="replace"))

    def do_put(self, path, size, mode=0o644):
        with open(path, "wb") as file:
            while size:
                block = self.rfile.read(min(size, 1 << 20))
                if not block:
                    raise OSError(f"{size} bytes are missing")
                file.write(block)
                size -= len(block)
        os.chmod(path, mode)
        self.answer()

    def do_connect(self, path):
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)
            self.answer()
            forth = threading.Thread(target=pump, args=(self.rfile.read1, other), daemon=True)
            forth.start()
            pump(other.recv, self.connection)
            forth.join()


def pump(read, target):
    """Copy until the source ends, then end the target's side."""
    with contextlib.suppress(OSError):
        while block := read(65536):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    assert shutil.which("systemctl")
    with Server(("", PORT), Request) as server, open("/dev/console", "w") as console:
        print(f"\nnoded-vm-agent ready {BOOT_ID.read_text().strip()}", file=console, flush=True)
        server.serve_forever()
