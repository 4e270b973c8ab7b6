"""The peers' default profiles as facts, and the comparison that `docs/seccomp.md` shows.

`peers/*.tsv` hold for each system call on x86-64 what lets it in: `always`, `arguments` (only with some), or
the capabilities each of which does. Run as a program, this prints the comparison.
"""

from __future__ import annotations

from pathlib import Path

from noded.spec.seccomp.calls import ALLOWED, DENIED, WITH_CAPABILITY
from noded.spec.seccomp.peers import REASONS, grants

PEERS = {"CRI-O": "crio.tsv", "containerd": "containerd.tsv"}
KEYS = {"CRI-O": "cri-o", "containerd": "containerd"}  # in noded


def peer(name: str) -> dict[str, str]:
    text = (Path(__file__).with_name("peers") / PEERS[name]).read_text()
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    return {call: ", ".join(sorted(answer.split())) for call, answer in rows}


def differences(name: str) -> dict[str, tuple[str, str]]:
    """Calls that the peer treats differently -> (what noded says, what the peer does), "-" = never."""
    own, other = grants(), peer(name)
    known = {call for group in (*ALLOWED, *WITH_CAPABILITY, *DENIED) for call in group.names} | own.keys()
    return {
        call: (own.get(call, "-"), other.get(call, "-"))
        for call in sorted(known | other.keys())
        if own.get(call, "-") != other.get(call, "-")
    }


_HEAD = """| call | noded | {peers} | why |
|---|---|{rule}|---|
"""


def table() -> str:
    """The comparison as Markdown: a row for each call that noded and a peer treat differently."""
    found = {name: differences(name) for name in PEERS}
    own = grants()
    rows = [_HEAD.format(peers=" | ".join(PEERS), rule="---|" * len(PEERS)).rstrip()]
    for call in sorted({call for one in found.values() for call in one}):
        cells = [own.get(call, "-")]
        cells += [found[name][call][1] if call in found[name] else "same" for name in PEERS]
        rows.append(f"| `{call}` | {' | '.join(cells)} | {REASONS[call]} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
