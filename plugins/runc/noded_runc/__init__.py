"""noded's runtime plugin for runc and crun."""
