"""CDI devices in real containers: as kubelet asks for them, from files that change while noded runs."""

from __future__ import annotations

import grpc
import pytest

from tests.support.daemon import NodedDaemon

pytestmark = pytest.mark.root

SPEC = """\
cdiVersion: 0.7.0
kind: vendor.test/zero
containerEdits:
  env: [FROM_FILE=yes]
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/mine
      hostPath: /dev/kmsg
      permissions: r
      gid: 77
    mounts:
    - hostPath: {library}
      containerPath: /usr/lib/vendor
      options: [ro, nosuid]
    hooks:
    - hookName: createRuntime
      path: /bin/sh
      args: [sh, -c, "cat >{seen}"]
    env: [FROM_DEVICE=first]
    additionalGids: [4321]
"""


@pytest.fixture
def daemon(tmp_path, pushed):
    directories = [tmp_path / "etc-cdi", tmp_path / "run-cdi"]
    with NodedDaemon(
        tmp_path,
        mirrors={"registry.example": pushed.host},
        insecure=[pushed.host],
        settings={"cdi_spec_dirs": directories},
    ) as running:
        yield running


def start(daemon, cri, handler, image, *names, annotations=None):
    pod = daemon.pod_config(cri)
    sandbox = cri.run_pod(pod, handler)
    config = cri.container_config("main", image, ["sleep", "1000"])
    config.CDI_devices.extend(cri.pb.CDIDevice(name=name) for name in names)
    config.annotations.update(annotations or {})
    return cri.run_container(sandbox, config, pod)


def test_a_device_is_there_as_its_file_says(daemon, cri, busybox, handler, tmp_path):
    library, seen = tmp_path / "library", tmp_path / "seen"
    library.mkdir()
    (library / "lib.so").write_text("code")
    with pytest.raises(grpc.RpcError, match=r"vendor.test/zero=0: no file describes it"):
        start(daemon, cri, handler, busybox, "vendor.test/zero=0")
    (tmp_path / "etc-cdi").mkdir()
    (tmp_path / "etc-cdi/vendor.yaml").write_text(SPEC.format(library=library, seen=seen))
    container = start(daemon, cri, handler, busybox, annotations={"cdi.k8s.io/plugin": "vendor.test/zero=0"})
    script = (
        "stat -c %t:%T:%g /dev/mine; (: >/dev/mine) 2>/dev/null; echo w:$?; "
        "cat /usr/lib/vendor/lib.so; echo; touch /usr/lib/vendor/x 2>/dev/null; echo ro:$?; "
        "echo $FROM_FILE $FROM_DEVICE; id -G"
    )
    lines = cri.exec(container, "/bin/sh", "-c", script).stdout.decode().splitlines()
    assert lines == ["1:b:77", "w:1", "code", "ro:1", "yes first", "0 4321"]
    assert container in seen.read_text()  # the hook was told the state of this container
    (tmp_path / "run-cdi").mkdir()
    (tmp_path / "run-cdi/vendor.json").write_text(
        '{"cdiVersion": "0.5.0", "kind": "vendor.test/zero", "devices": '
        '[{"name": "0", "containerEdits": {"env": ["FROM_DEVICE=second"]}}]}'
    )
    container = start(daemon, cri, handler, busybox, "vendor.test/zero=0")
    answer = cri.exec(container, "/bin/sh", "-c", "echo $FROM_FILE.$FROM_DEVICE; ls /dev/mine")
    assert answer.stdout == b".second\n"
    assert answer.exit_code != 0


def test_a_device_that_cannot_be_had_fails_the_create_with_the_reason(
    daemon, cri, busybox, handler, tmp_path
):
    (tmp_path / "etc-cdi").mkdir()
    (tmp_path / "etc-cdi/bad.yaml").write_text("cdiVersion: 9.9.9\n")
    (tmp_path / "etc-cdi/gone.json").write_text(
        '{"cdiVersion": "0.5.0", "kind": "v.test/gone", "devices": '
        '[{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/no-such-device"}]}}]}'
    )
    for name, words in (
        ("v.test/x=0", r"bad\.yaml: cdiVersion '9\.9\.9' is none of"),
        ("v.test/gone=0", "/dev/no-such-device: No such file"),
        ("nonsense", r"CDI_devices\[0\]\.name: 'nonsense' is not VENDOR/CLASS=NAME"),
    ):
        with pytest.raises(grpc.RpcError, match=words):
            start(daemon, cri, handler, busybox, name)
