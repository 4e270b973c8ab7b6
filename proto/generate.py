#!/usr/bin/env python3
"""Regenerate noded/proto from the .proto files beside this script.

Usage: proto/generate.py [OUTPUT_DIRECTORY]

Needs the development dependencies (grpcio-tools, betterproto2-compiler, ruff) in the interpreter
that runs it. The result depends on the .proto files and those three versions only, so a test can
regenerate into an empty directory and compare byte for byte.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
PACKAGE = SOURCES.parent / "noded" / "proto"

# Without the two options the compiler adds client stubs, which import grpc.
OPTIONS = "client_generation=none,server_generation=none"
INIT = '"""Generated protobuf messages. Never edit: run proto/generate.py."""\n'


def generate(output: Path) -> None:
    """Write the package into `output`, which is replaced.

    Raises: CalledProcessError when protoc or its plugin fails; `output` is then untouched.
    """
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        fresh = work / "proto"
        fresh.mkdir()
        # The plugin formats with ruff, which reads the nearest settings: give it none.
        (work / "ruff.toml").touch()
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
        subprocess.run(
            [
                sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={SOURCES}",
                f"--python_betterproto2_out={fresh}", f"--python_betterproto2_opt={OPTIONS}",
                *sorted(path.name for path in SOURCES.glob("*.proto")),
            ],
            check=True,
            cwd=work,
            env=environment,
        )  # fmt: skip
        (fresh / "__init__.py").write_text(INIT)
        if output.exists():
            shutil.rmtree(output)
        shutil.copytree(fresh, output)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
