"""Generated protobuf messages. Never edit: run proto/generate.py."""
