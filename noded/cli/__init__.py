"""The `noded` program: one module per command, imported only when that command runs."""
