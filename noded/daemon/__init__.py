"""The daemon: in which order it starts and stops. The front comes first, the rest when it is imported."""
