"""Pure functions from what a client asked, an image and the host to an OCI runtime spec.

Nothing here touches the system: every fact comes in as data (`noded.spec.inputs`), and the same
inputs give the same bytes. See the OCI runtime-spec (config.md, config-linux.md) for the output.
"""
