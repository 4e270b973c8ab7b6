"""noded's runtime plugin for gVisor."""
