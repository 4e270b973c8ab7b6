"""Turning a layer blob into a directory tree, in a process that can do nothing else.

Theory of operation. The daemon starts one single-threaded *zygote* (`zygote.py`), a small Python process
that has imported all that is needed below. For each layer the daemon (`client.py`) sends it the open
blob (a file or a pipe) and the open destination directory; the zygote forks a *child* (`child.py`) that
makes the destination its root directory, gives up every privilege but those of writing files with any
owner (`confine.py`), and extracts the tar (`compression.py` -> `tar.py` -> `extract.py`, `metadata.py`).
What the child cannot do without more privilege (`trusted.*` attributes, metadata that a lower layer
knows) it reports, and the daemon does it.

The modules that the zygote imports (all of this package but `client`) use the standard library, isal and
zstandard only, so that the zygote stays small.
"""
