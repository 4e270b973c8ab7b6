#!/usr/bin/python3 -IBS
"""compile [--clear]: byte code of noded for the system's Python, or (--clear) none at all.

Maintainer scripts run it when noded, a plugin or Python has changed. Without byte code noded works,
but starts more slowly. The time stamps in packages are those of a commit, not of a change, so byte
code is always made anew: Python could take an old one for a new one.
"""

import compileall
import os
import re
import shutil
import sys

HERE = "/usr/lib/noded"
# Hundreds of modules that noded never imports.
SKIPPED = re.compile(r"/pygments/(lexers|formatters|styles)/[a-z]")


def clear() -> None:
    """Remove all byte code, and directories that only held some."""
    for parent, names, _ in os.walk(HERE, topdown=False):
        if "__pycache__" in names:
            shutil.rmtree(os.path.join(parent, "__pycache__"))
        if parent != HERE and not os.listdir(parent):
            os.rmdir(parent)


clear()
if "--clear" not in sys.argv[1:]:
    sys.path.insert(0, HERE)
    import noded_start

    done = True
    for name in ("common", noded_start.directory()):
        if os.path.isdir(os.path.join(HERE, name)):
            done &= bool(compileall.compile_dir(os.path.join(HERE, name), quiet=1, rx=SKIPPED))
    sys.exit(not done)
