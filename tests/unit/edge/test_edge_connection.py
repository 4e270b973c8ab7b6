"""What one connection keeps in memory."""

from __future__ import annotations

import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection

from noded.edge.connection import _CLOSED_STREAMS, Connection

REQUEST = [(":method", "POST"), (":path", "/x"), (":scheme", "http"), (":authority", "a")]


class Transport(asyncio.WriteTransport):
    def __init__(self):
        super().__init__()
        self.sent = b""

    def write(self, data):
        self.sent += bytes(data)

    def is_closing(self):
        return False

    def abort(self):
        pass


class Done:
    """A call that ends at once, by a reset."""

    def start(self):
        return asyncio.get_running_loop().create_task(asyncio.sleep(0))

    def cancel(self):
        pass


def test_calls_that_are_over_are_forgotten():
    async def main():
        transport = Transport()
        connection = Connection(lambda stream, headers: Done(), lambda _: None, lambda _: None)
        connection.connection_made(transport)
        client = H2Connection(H2Configuration(client_side=True))
        client.initiate_connection()
        for _ in range(_CLOSED_STREAMS + 500):
            number = client.get_next_available_stream_id()
            client.send_headers(number, REQUEST, end_stream=True)
            client.reset_stream(number)
            connection.data_received(client.data_to_send())
            await asyncio.sleep(0)
        await asyncio.gather(*(task for _, task in connection.calls.running()))
        await asyncio.sleep(0)
        assert len(connection._h2._closed_streams) <= _CLOSED_STREAMS
        assert len(connection._h2.streams) <= 1  # the last one goes with the next call
        assert not connection.calls.running()

    asyncio.run(main())
