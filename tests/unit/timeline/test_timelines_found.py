"""Who asks for a pod gets all of it, and the list does not read more of the journal than it must."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from timeline_values import WEB, call, started

from noded.engine.timelines import Timelines
from noded.errors import InvalidArgument, NotFound
from noded.tracing.journal import Journal
from noded.tracing.recorder import Recorder


def pod(number: int, name: str = "web", namespace: str = "default"):
    subject = replace(WEB, namespace=namespace, name=name, uid=f"u-{number}", sandbox_id=f"{number:064x}")
    return call("RunPodSandbox", number, number + 0.5, subject=subject, id_=f"{number + 1:016x}")


def find(journal: Journal, wanted: str, last: int):
    return trio.run(Timelines(journal, Recorder(journal)).find, wanted, last)


def test_a_pod_is_found_by_its_id_with_the_pulls_that_only_name_it(tmp_path):
    journal = Journal(tmp_path)
    journal.write([*started().calls, pod(7, "other")])
    assert find(journal, WEB.sandbox_id[:8], 1) == [started()]
    assert find(journal, "default/web", 5) == [started()]


def test_the_newest_are_listed_from_as_few_files_as_have_them(tmp_path):
    journal = Journal(tmp_path, files=4, file_bytes=3000)
    for number in range(60):
        journal.write([pod(number, f"pod-{number}")])
    assert [one.subject.name for one in find(journal, "", 5)] == [f"pod-{number}" for number in range(55, 60)]
    assert len(find(journal, "", 1000)) == len(journal.read())


def test_names_that_mean_several_pods_are_refused_and_unknown_ones_too(tmp_path):
    journal = Journal(tmp_path)
    journal.write([pod(1), pod(2, namespace="test"), pod(3)])
    with pytest.raises(InvalidArgument, match="default/web or test/web"):
        find(journal, "web", 1)
    assert [one.subject.uid for one in find(journal, "default/web", 2)] == ["u-1", "u-3"]
    with pytest.raises(NotFound, match="nobody"):
        find(journal, "nobody", 1)
