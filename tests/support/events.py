"""A subscriber of container events."""

from __future__ import annotations

import queue
import threading

import grpc


class Follower:
    """A GetContainerEvents stream that a thread reads; it is subscribed once made."""

    def __init__(self, cri):
        self._call = cri.runtime.GetContainerEvents(cri.pb.GetEventsRequest())
        self._call.initial_metadata()
        self._events: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            for event in self._call:
                self._events.put(event)
        except grpc.RpcError as error:
            self._events.put(error)

    def take(self, count: int):
        return [self._events.get(timeout=20) for _ in range(count)]

    def error(self):
        while not isinstance(found := self._events.get(timeout=20), grpc.RpcError):
            pass
        return found

    def empty(self) -> bool:
        return self._events.empty()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._call.cancel()
        self._thread.join()
