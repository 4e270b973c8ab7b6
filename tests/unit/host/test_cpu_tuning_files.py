"""Files that tune CPUs, in a made root: this machine may have no governors, and its CPUs are everybody's."""

from __future__ import annotations

import shutil

import pytest

from noded.errors import FailedPrecondition
from noded.host import interrupts
from noded.host.cpu_tuning import CpuTuner
from noded.spec.cpu_tuning import CpuTuning, FileWrite, TuningPlan, tuning_plan

TUNING = CpuTuning(quota=False, interrupts=False, resume_latency="n/a", governor="performance")


@pytest.fixture
def root(tmp_path):
    for cpu in range(4):
        directory = tmp_path / f"sys/devices/system/cpu/cpu{cpu}"
        (directory / "power").mkdir(parents=True)
        (directory / "power/pm_qos_resume_latency_us").write_text("0\n")
        (directory / "cpufreq").mkdir()
        (directory / "cpufreq/scaling_governor").write_text("powersave\n")
        (directory / "cpufreq/scaling_available_governors").write_text("performance powersave\n")
    (tmp_path / "proc/irq").mkdir(parents=True)
    (tmp_path / "proc/irq/default_smp_affinity").write_text("f\n")
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg/cpu.max").write_text("200000 100000\n")
    return tmp_path


def plan(*cpus) -> TuningPlan:
    return tuning_plan(TUNING, frozenset(cpus), unified=True, cpuset_cgroup="", pod_cpu_cgroup="cg")


def contents(root) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text().strip()
        for top in ("sys", "proc", "cg")
        for path in (root / top).rglob("*")
        if path.is_file()
    }


def test_a_plan_is_carried_out_and_undone(root, tmp_path):
    tuner, journal, before = CpuTuner(root), tmp_path / "journal", contents(root)
    tuner.apply(plan(1, 2), journal)
    changed = {path: value for path, value in contents(root).items() if before[path] != value}
    assert changed == {
        "cg/cpu.max": "max",
        "proc/irq/default_smp_affinity": "9",
        **{f"sys/devices/system/cpu/cpu{n}/power/pm_qos_resume_latency_us": "n/a" for n in (1, 2)},
        **{f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_governor": "performance" for n in (1, 2)},
    }
    for _ in range(2):  # the second time there is nothing to do
        tuner.undo(journal)
        assert contents(root) == before | {"cg/cpu.max": "max"}  # which goes with the pod
    assert not journal.exists()


def test_two_containers_give_back_their_own_interrupts_only(root, tmp_path):
    tuner, mask = CpuTuner(root), root / "proc/irq/default_smp_affinity"
    tuner.apply(plan(1), tmp_path / "one")
    tuner.apply(plan(2, 3), tmp_path / "two")
    assert mask.read_text() == "1"
    tuner.undo(tmp_path / "one")
    assert mask.read_text() == "3"
    tuner.undo(tmp_path / "two")
    assert mask.read_text() == "f"


def test_what_somebody_else_changed_meanwhile_stays(root, tmp_path):
    tuner = CpuTuner(root)
    tuner.apply(plan(1), tmp_path / "journal")
    governor = root / "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"
    governor.write_text("schedutil\n")
    (root / "sys/devices/system/cpu/cpu1/power/pm_qos_resume_latency_us").unlink()  # unplugged
    tuner.undo(tmp_path / "journal")
    assert governor.read_text() == "schedutil\n"


@pytest.mark.parametrize("index", range(6))
def test_a_crash_at_any_write_is_undone_from_the_journal(root, tmp_path, monkeypatch, index):
    tuner, journal, before = CpuTuner(root), tmp_path / "journal", contents(root)
    write, count = CpuTuner._write, 0

    def fail(self, one: FileWrite) -> None:
        nonlocal count
        count += 1
        if count > index:
            raise KeyboardInterrupt
        write(self, one)

    monkeypatch.setattr(CpuTuner, "_write", fail)
    with pytest.raises(KeyboardInterrupt):
        tuner.apply(plan(1, 2), journal)
    monkeypatch.undo()
    CpuTuner(root).undo(journal)  # of the next daemon
    assert {**contents(root), "cg/cpu.max": ""} == {**before, "cg/cpu.max": ""}


def test_what_the_node_lacks_is_named_before_anything_is_written(root, tmp_path):
    tuner = CpuTuner(root)
    for number in (2, 3):
        (root / f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor").unlink()
    before = contents(root)
    with pytest.raises(FailedPrecondition, match=r"cpu-freq-governor: .*cpu2/cpufreq.*No such file"):
        tuner.apply(plan(1, 2), tmp_path / "journal")
    strange = tuning_plan(
        CpuTuning(governor="turbo"), frozenset({1}), unified=True, cpuset_cgroup="", pod_cpu_cgroup=""
    )
    with pytest.raises(FailedPrecondition, match="no 'turbo', only performance, powersave"):
        tuner.apply(strange, tmp_path / "journal")
    (root / "proc/irq/default_smp_affinity").write_text("3")
    with pytest.raises(FailedPrecondition, match="no CPU but 0-1 serves"):
        tuner.apply(TuningPlan((), frozenset({0, 1})), tmp_path / "journal")
    (root / "proc/irq/default_smp_affinity").write_text("f")
    assert contents(root) == {**before, "proc/irq/default_smp_affinity": "f"}
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("text", ["ffffffff,ffffffff", "1,00000000", "00000003"])
def test_masks_of_many_cpus_are_read_and_written(root, tmp_path, text):
    mask = root / "proc/irq/default_smp_affinity"
    mask.write_text(text)
    tuner = CpuTuner(root)
    bits = int(text.replace(",", ""), 16)
    top = bits.bit_length() - 1
    if bits != 1 << top:
        tuner.apply(TuningPlan((), frozenset({top})), tmp_path / "journal")
        assert int(mask.read_text().replace(",", ""), 16) == bits ^ 1 << top
        tuner.undo(tmp_path / "journal")
    assert int(mask.read_text().replace(",", ""), 16) == bits


def interrupt(root, number, mask):
    path = root / f"proc/irq/{number}/smp_affinity"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{mask}\n")
    return path


def quiet(*cpus) -> TuningPlan:
    return TuningPlan((), frozenset(cpus))


def test_interrupts_that_are_served_already_go_to_other_cpus_and_come_back(root, tmp_path):
    tuner = CpuTuner(root)
    shared, own, elsewhere = (interrupt(root, n, mask) for n, mask in ((24, "f"), (25, "2"), (26, "1")))
    tuner.apply(quiet(1), tmp_path / "one")
    assert [path.read_text().strip() for path in (shared, own, elsewhere)] == ["d", "d", "1"]
    tuner.apply(quiet(2), tmp_path / "two")
    assert [path.read_text().strip() for path in (shared, own, elsewhere)] == ["9", "9", "1"]
    tuner.undo(tmp_path / "one")
    assert shared.read_text().strip() == "b"
    tuner.undo(tmp_path / "two")
    assert [path.read_text().strip() for path in (shared, elsewhere)] == ["f", "1"]


def test_an_interrupt_that_others_have_moved_since_stays_and_one_that_is_gone_is_passed_over(root, tmp_path):
    tuner = CpuTuner(root)
    moved, shared, gone = (interrupt(root, n, mask) for n, mask in ((24, "2"), (25, "3"), (26, "3")))
    tuner.apply(quiet(1), tmp_path / "journal")
    moved.write_text("4")  # irqbalance chose
    shared.write_text("8")
    gone.unlink()
    for _ in range(2):
        tuner.undo(tmp_path / "journal")
    assert (moved.read_text(), shared.read_text()) == ("4", "a")


def test_a_crash_between_interrupts_is_undone_from_the_journal(root, tmp_path, monkeypatch):
    paths = [interrupt(root, n, mask) for n, mask in ((24, "f"), (25, "2"))]
    before = contents(root)
    monkeypatch.setattr(
        interrupts, "move", lambda *arguments: (paths[0].write_text("d"), (_ for _ in ()).throw(SystemExit))
    )
    with pytest.raises(SystemExit):
        CpuTuner(root).apply(quiet(1), tmp_path / "journal")
    CpuTuner(root).undo(tmp_path / "journal")
    assert contents(root) == before


class Kernel:
    """Files of a cgroup v2 tree that answer as the kernel does."""

    def __init__(self, root):
        self.top = root / "cgroup"
        self.directories = [self.top / "pods", self.top / "pods/one", self.top / "pods/one/main"]
        self.directories[-1].mkdir(parents=True)
        for directory in self.directories:
            (directory / "cpuset.cpus.exclusive").write_text("\n")
        (self.directories[-1] / "cpuset.cpus.partition").write_text("member\n")

    def exclusive(self) -> list[str]:
        return [(one / "cpuset.cpus.exclusive").read_text().strip() for one in self.directories]

    def partition(self) -> str:
        return (self.directories[-1] / "cpuset.cpus.partition").read_text().strip()


def isolated(*cpus) -> TuningPlan:
    return TuningPlan(isolated_cgroup="cgroup/pods/one/main", isolated_cpus=frozenset(cpus))


def test_cpus_of_a_cgroup_are_isolated_and_given_back_without_those_of_others(root, tmp_path):
    kernel, tuner = Kernel(root), CpuTuner(root)
    (kernel.directories[0] / "cpuset.cpus.exclusive").write_text("6-7\n")  # of another pod's container
    tuner.apply(isolated(2, 3), tmp_path / "journal")
    assert kernel.exclusive() == ["2-3,6-7", "2-3", "2-3"]
    assert kernel.partition() == "isolated"
    for _ in range(2):
        tuner.undo(tmp_path / "journal")
        assert kernel.exclusive() == ["6-7", "", ""]
        assert kernel.partition() == "member"


def test_the_cpus_of_a_cgroup_that_is_gone_are_given_back_above_it(root, tmp_path):
    kernel, tuner = Kernel(root), CpuTuner(root)
    tuner.apply(isolated(2), tmp_path / "journal")
    shutil.rmtree(kernel.directories[1])
    tuner.undo(tmp_path / "journal")
    assert (kernel.directories[0] / "cpuset.cpus.exclusive").read_text().strip() == ""


def test_who_asks_for_the_cpus_of_another_partition_takes_none_of_them_away(root, tmp_path, monkeypatch):
    kernel, tuner = Kernel(root), CpuTuner(root)
    (kernel.directories[0] / "cpuset.cpus.exclusive").write_text("2-3\n")  # of another pod's container
    write = type(tmp_path).write_text

    def writing(path, text, *arguments, **named):
        if path.name == "cpuset.cpus.exclusive" and path.parent == kernel.directories[1] and "3" in text:
            raise OSError(22, "Invalid argument")
        return write(path, text, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "write_text", writing)
        with pytest.raises(FailedPrecondition, match="another cgroup may use them"):
            tuner.apply(isolated(3, 4), tmp_path / "journal")
    assert kernel.exclusive() == ["2-4", "", ""]
    tuner.undo(tmp_path / "journal")
    assert kernel.exclusive() == ["2-3", "", ""]


def test_a_kernel_that_does_not_isolate_is_told_and_what_was_taken_is_given_back(root, tmp_path, monkeypatch):
    kernel, tuner = Kernel(root), CpuTuner(root)
    invalid = "isolated invalid (Cpu list in cpuset.cpus not exclusive)"
    read = type(tmp_path).read_text

    def reading(path, *arguments, **named):
        return f"{invalid}\n" if path.name == "cpuset.cpus.partition" else read(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "read_text", reading)
        with pytest.raises(FailedPrecondition, match=r"cpu-load-balancing: .*isolated invalid \(Cpu list"):
            tuner.apply(isolated(2), tmp_path / "journal")
    tuner.undo(tmp_path / "journal")
    assert (kernel.exclusive(), kernel.partition()) == (["", "", ""], "member")
    (kernel.directories[-1] / "cpuset.cpus.exclusive").unlink()
    (kernel.directories[1] / "cpuset.cpus.exclusive").unlink()
    with pytest.raises(FailedPrecondition, match=r"cpu-load-balancing: .*Linux 6\.7"):
        tuner.apply(isolated(2), tmp_path / "other")
