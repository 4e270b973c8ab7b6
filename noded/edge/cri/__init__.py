"""CRI messages to values and back, one file per RPC family; no decisions."""
