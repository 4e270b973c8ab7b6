"""noded's runtime plugin for Kata Containers."""
