"""The operator's commands against a real daemon with a real pod and a real registry."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import documented
from tests.support.images import busybox_image, write_layout
from tests.support.processes import end, read_until

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]


def command(daemon, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "noded", *arguments, "--address", daemon.address]


def noded(daemon, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        command(daemon, *arguments), cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def rows(text: str) -> list[dict[str, str]]:
    """A plain table as dictionaries, by the columns of its header."""
    header, *lines = text.splitlines()
    columns = [(match[0], match.start()) for match in re.finditer(r"\S+(?: \S+)*", header)]
    ends = [start for _, start in columns[1:]] + [None]
    return [
        {name: line[start:end].strip() for (name, start), end in zip(columns, ends, strict=True)}
        for line in lines
    ]


@pytest.fixture
def image(daemon, tmp_path) -> Any:
    built = busybox_image(labels={"of": tmp_path.name})
    write_layout(built, tmp_path / "layout", "support.invalid/busybox:1.0")
    return built


@pytest.fixture
def loaded(daemon, image, tmp_path) -> str:
    noded(daemon, "images", "load", str(tmp_path / "layout"))
    return image.id


@pytest.fixture
def container(daemon, cri, loaded) -> str:
    """A container that writes to both streams when told to, then exits."""
    pod = daemon.pod_config(cri, "shown")
    pod_id = cri.run_pod(pod)
    script = "mkfifo /tmp/go; echo one; echo two >&2; read x </tmp/go; echo last; exit 7"
    return cri.run_container(pod_id, cri.container_config("app", loaded, ["sh", "-c", script]), pod)


def test_an_image_is_loaded_listed_saved_and_removed(daemon, image, loaded, tmp_path):
    (row,) = rows(noded(daemon, "images", "ls"))
    assert row["IMAGE"] == "support.invalid/busybox:1.0"
    assert image.id.removeprefix("sha256:").startswith(row["IMAGE ID"])
    (document,) = json.loads(noded(daemon, "images", "ls", "--json"))
    assert document["id"] == image.id == noded(daemon, "images", "ls", "-q").strip()
    for form, reference in (
        ("oci", f"oci-archive:{tmp_path}/oci.tar"),
        ("docker", f"docker-archive:{tmp_path}/docker.tar"),
    ):
        noded(daemon, "images", "save", "-o", f"{tmp_path}/{form}.tar", "--format", form, document["tags"][0])
        subprocess.run(["skopeo", "inspect", "--config", reference], check=True, capture_output=True)
    assert noded(daemon, "images", "rm", "support.invalid/busybox:1.0") == f"removed {image.id}\n"
    assert json.loads(noded(daemon, "images", "ls", "--json")) == []
    error = noded(daemon, "images", "rm", "support.invalid/busybox:1.0", status=1)
    assert error == "noded: no image support.invalid/busybox:1.0 on this node\n"
    assert image.id in noded(daemon, "images", "load", f"{tmp_path}/oci.tar")


def test_an_image_is_pulled_from_a_registry_and_an_unknown_one_is_one_line(tmp_path, registry):
    from tests.support.daemon import NodedDaemon

    image = busybox_image(labels={"of": "pull"})
    reference = registry.push(image, "commands/busybox", "1")
    with NodedDaemon(tmp_path, insecure=[registry.host]) as daemon:
        assert noded(daemon, "images", "pull", reference).strip() == image.id
        again = documented("images pull", noded(daemon, "images", "pull", reference, "--json"))
        assert again == {"id": image.id, "reference": reference}
        error = noded(daemon, "images", "pull", f"{registry.host}/commands/absent:1", status=1)
        assert error.startswith("noded: ")
        assert error.count("\n") == 1
        assert f"{registry.host}/commands/absent" in error


def test_pods_and_containers_are_listed(daemon, container):
    (pod,) = rows(noded(daemon, "pods"))
    assert (pod["STATE"], pod["NAMESPACE"], pod["NAME"], pod["ATTEMPT"]) == ("ready", "default", "shown", "0")
    (row,) = rows(noded(daemon, "ps"))
    assert container.startswith(row["CONTAINER"])
    assert (row["STATE"], row["NAME"], row["POD"]) == ("running", "app", "default/shown")
    assert noded(daemon, "ps", "-q").strip() == container
    assert rows(noded(daemon, "pods", "-n", "other")) == []


def test_logs_are_shown_tailed_and_followed_until_the_exit(daemon, cri, container):
    following = subprocess.Popen(
        command(daemon, "logs", "-f", container[:12]),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert following.stdout is not None
        read_until(following.stdout, following, lambda line: line == "one", 20)
        # Its end ends this shell too, perhaps before it has exited by itself.
        assert cri.exec(container, "sh", "-c", "echo >/tmp/go").exit_code in (0, 137)
        out, err = following.communicate(timeout=30)
    finally:
        end(following)
    assert following.returncode == 0
    assert out == b"last\n"
    assert err == b"two\n"
    assert noded(daemon, "logs", container).splitlines() == ["one", "last"]
    assert noded(daemon, "logs", "--tail", "1", container) == "last\n"
    stamped = noded(daemon, "logs", "-t", "--tail", "1", container)
    assert stamped.startswith("20")
    assert stamped.endswith(" last\n")
    assert rows(noded(daemon, "ps")) == []
    assert rows(noded(daemon, "ps", "-a"))[0]["STATE"] == "exited"


def test_the_state_of_the_daemon_is_shown(daemon):
    conditions, handlers = noded(daemon, "status").split("\n\n")
    met = {row["CONDITION"]: row["MET"] for row in rows(conditions)}
    assert (met["RuntimeReady"], met["NetworkReady"]) == ("yes", "yes")
    assert {"(default)", "runc", "crun"} <= {row["HANDLER"] for row in rows(handlers)}
    document = json.loads(noded(daemon, "status", "--json"))
    assert {"conditions", "handlers", "info"} == set(document)
    assert json.loads(noded(daemon, "version", "--json"))["daemon"]["name"] == "noded"
    assert json.loads(noded(daemon, "debts", "list", "--json")) == []


def test_an_unmet_condition_is_the_exit_status(tmp_path):
    from tests.support.daemon import NodedDaemon

    with NodedDaemon(tmp_path, settings={"network": {"conf_dir": tmp_path / "empty"}}) as daemon:
        (tmp_path / "empty").mkdir()
        done = subprocess.run(
            command(daemon, "status"), cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        met = {row["CONDITION"]: row for row in rows(done.stdout.split("\n\n")[0])}
        assert met["NetworkReady"]["MET"] == "no"
        assert met["NetworkReady"]["MESSAGE"]


def test_an_unknown_container_and_an_unknown_debt_are_one_line(daemon):
    assert noded(daemon, "logs", "0123", status=1) == "noded: no container 0123\n"
    error = noded(daemon, "debts", "forgive", "0123", status=1)
    assert error.startswith("noded: ")
    assert "0123" in error
