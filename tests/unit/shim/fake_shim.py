#!/usr/bin/env python3
"""A shim that runs nothing, for what only misbehaving shims or those with virtual machines do.

Its tasks are made up: a started task writes "hello" to its standard output and runs until it is
killed; a command writes "hello" and exits with 0. With `machine` there is a process that it calls its
hypervisor, a `sleep`, whose pid all tasks have.

It reads FAKE_SHIM, a JSON object: `start` = how the start command behaves ("json", "fails",
"nonsense", "hangs"), and for each method of the task service what to do instead of answering:
"hang", "close", "half", "garbage", "huge", "stray", "die", [CODE, WORDS]. `status` replaces every
status that State tells; `directory` is where its socket goes; `calls` is a file for what it was asked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from noded.wire import ttrpc_metrics
from noded.wire import ttrpc_task as task
from noded.wire.ttrpc import Frame, FrameReader, FrameType, Request, Response, Status

BEHAVIOUR = json.loads(os.environ.get("FAKE_SHIM", "{}"))


class Task:
    def __init__(self) -> None:
        self.status = task.ProcessStatus.CREATED
        self.code = 0
        self.ended = threading.Event()
        self.ended_at = task.Timestamp()
        self.stdout = ""

    def end(self, code: int) -> None:
        self.status, self.code = task.ProcessStatus.STOPPED, code
        self.ended_at = task.Timestamp(int(time.time()), 5)
        self.ended.set()


class Refusal(Exception):
    pass


class Shim:
    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.hypervisor: subprocess.Popen[bytes] | None = None

    def find(self, request) -> Task:
        found = self.tasks.get(request.id + getattr(request, "exec_id", ""))
        if found is None:
            raise Refusal(5, f"task {request.id} not found")
        return found

    def connect(self, request):
        return task.ConnectResponse(os.getpid(), 0, "1")

    def create(self, request):
        if self.hypervisor is None and BEHAVIOUR["machine"]:
            self.hypervisor = subprocess.Popen(["sleep", "1000"])
        if "calls" in BEHAVIOUR and request.options is not None:
            told = task.RuntimeOptions.decode(request.options.value)
            with open(BEHAVIOUR["calls"], "a") as calls:
                calls.write(f"options {request.options.type_url} {told.config_path}\n")
        self.tasks[request.id] = Task()
        self.tasks[request.id].stdout = request.stdout
        return task.CreateTaskResponse(self.pid)

    @property
    def pid(self) -> int:
        return os.getpid() if self.hypervisor is None else self.hypervisor.pid

    def exec(self, request):
        made = self.tasks[request.id + request.exec_id] = Task()
        made.stdout = request.stdout
        return task.Empty()

    def start(self, request):
        found = self.find(request)
        found.status = task.ProcessStatus.RUNNING
        with open(found.stdout, "wb") as output:
            output.write(b"hello\n")
        if request.exec_id:
            found.end(0)
        return task.StartResponse(self.pid)

    def wait(self, request):
        found = self.find(request)
        found.ended.wait()
        return task.WaitResponse(found.code, found.ended_at)

    def kill(self, request):
        found = self.find(request)
        if found.ended.is_set():
            raise Refusal(5, "process already finished")
        found.end(128 + request.signal)
        return task.Empty()

    def delete(self, request):
        found = self.find(request)
        if not found.ended.is_set():
            raise Refusal(9, "cannot delete a running process")
        del self.tasks[request.id + request.exec_id]
        return task.DeleteResponse(0, found.code, found.ended_at)

    def state(self, request):
        found = self.find(request)
        return task.StateResponse(id=request.id, status=BEHAVIOUR.get("status", found.status))

    def shutdown(self, request):
        if not self.tasks:
            if self.hypervisor is not None:
                self.hypervisor.kill()
                self.hypervisor.wait()
            os._exit(0)
        return task.Empty()

    def stats(self, request):
        self.find(request)
        usage = ttrpc_metrics.MetricsV1(
            cpu=ttrpc_metrics.CpuV1(ttrpc_metrics.CpuUsageV1(7_000_000)),
            memory=ttrpc_metrics.MemoryV1(100, ttrpc_metrics.MemoryEntryV1(0, 5000)),
            pids=ttrpc_metrics.PidsV1(3),
        )
        return task.StatsResponse(task.packed(usage))

    def update(self, request):
        self.find(request)
        return task.Empty()


REQUESTS = {
    "Connect": task.ConnectRequest, "Create": task.CreateTaskRequest, "Exec": task.ExecProcessRequest,
    "Start": task.StartRequest, "Wait": task.WaitRequest, "Kill": task.KillRequest,
    "Delete": task.DeleteRequest, "State": task.StateRequest, "Shutdown": task.ShutdownRequest,
    "Update": task.UpdateTaskRequest, "Stats": task.StatsRequest,
}  # fmt: skip


def misbehave(connection: socket.socket, how, stream_id: int) -> None:
    if how == "hang":
        time.sleep(1000)
    elif how == "half":
        connection.sendall(Frame(stream_id, FrameType.RESPONSE, b"x" * 100).encode()[:50])
    elif how == "garbage":
        connection.sendall(Frame(stream_id, FrameType.RESPONSE, b"\xff" * 20).encode())
    elif how == "huge":
        connection.sendall(b"\xff" * 10)
    elif how == "stray":
        connection.sendall(Frame(stream_id + 2, FrameType.RESPONSE, b"").encode())
    elif how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif isinstance(how, list):
        answer = Response(Status(how[0], how[1])).encode()
        connection.sendall(Frame(stream_id, FrameType.RESPONSE, answer).encode())


def serve(shim: Shim, connection: socket.socket) -> None:
    reader = FrameReader()
    with connection:
        while data := connection.recv(65536):
            for frame in reader.feed(data):
                request = Request.decode(frame.data)
                if "calls" in BEHAVIOUR:
                    with open(BEHAVIOUR["calls"], "a") as calls:
                        calls.write(f"{request.service}/{request.method}\n")
                if request.method in BEHAVIOUR:
                    misbehave(connection, BEHAVIOUR[request.method], frame.stream_id)
                    return
                try:
                    arguments = REQUESTS[request.method].decode(request.payload)
                    payload = getattr(shim, request.method.lower())(arguments).encode()
                    answer = Response(payload=payload)
                except Refusal as refusal:
                    answer = Response(Status(*refusal.args))
                connection.sendall(Frame(frame.stream_id, FrameType.RESPONSE, answer.encode()).encode())


def start(identity: str) -> None:
    how = BEHAVIOUR.get("start", "")
    if how == "fails":
        sys.exit("the fake shim does not want to")
    if how == "hangs":
        time.sleep(1000)
    path = f"{BEHAVIOUR['directory']}/{identity[:8]}.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    if os.fork() == 0:
        os.setsid()
        with open("/proc/self/comm", "w") as name:
            name.write("containerd-shim")
        for fd in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        log = os.open("log", os.O_WRONLY)
        os.write(log, b"the fake shim runs\n")
        shim = Shim()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(shim, connection), daemon=True).start()
    address = f"unix://{path}"
    with open("address", "w") as file:
        file.write(address)
    if how == "json":
        address = json.dumps({"version": 3, "address": address, "protocol": "ttrpc"})
    print("who knows" if how == "nonsense" else address, end="", flush=True)


def main() -> None:
    words = sys.argv[1:]
    if words in (["-v"], ["--version"]):
        print("fake shim:\n  Version:  9.8.7")
    elif words[-1] == "start":
        start(words[words.index("-id") + 1])
    elif words[-1] == "delete" and "calls" in BEHAVIOUR:
        with open(BEHAVIOUR["calls"], "a") as calls:
            calls.write(f"delete {words[words.index('-id') + 1]} in {os.getcwd()}\n")


if __name__ == "__main__":
    main()
