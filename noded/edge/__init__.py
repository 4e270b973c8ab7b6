"""The asyncio side: gRPC on the unix socket, and the bridge into the core."""
