"""`demo`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command


def declare(commands: Commands) -> None:
    """The demonstration."""
    demo = command(
        commands,
        "demo",
        "run one pod in a noded of its own and clean up (root)",
        "noded.cli.demo:demo",
        "noded demo --runtime crun",
    )
    demo.add_argument("--runtime", default="runc", metavar="HANDLER", help="runtime handler (default: runc)")
    demo.add_argument(
        "--hold", action="store_true", help="keep the pod until Enter or Ctrl-C, to look around"
    )
