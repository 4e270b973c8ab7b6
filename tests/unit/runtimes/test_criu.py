"""What CRIU says when it fails."""

from __future__ import annotations

from noded.errors import FailedPrecondition
from noded.runtimes.criu import explain, first_error


def test_the_first_error_counts():
    log = "(00.1) Warn  (criu/x.c:1): no\n(00.2) Error (criu/sk-inet.c:188): inet: Connected\n"
    log += "(00.3) Error (criu/cr-dump.c:1): Dumping FAILED."
    assert first_error(log) == "inet: Connected"
    assert first_error("all well") == ""


def test_an_error_gets_criu_s_word_and_keeps_its_class(tmp_path):
    (tmp_path / "dump.log").write_text("x" * 100_000 + "\nError (criu/vdso.c:613): vdso: Failed\n")
    error = explain(FailedPrecondition("runc could not"), tmp_path / "dump.log")
    assert type(error) is FailedPrecondition
    assert str(error) == "runc could not; CRIU says: vdso: Failed"
    plain = FailedPrecondition("runc could not")
    assert explain(plain, tmp_path / "none.log") is plain
