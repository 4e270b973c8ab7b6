"""The hand-declared messages against the tables of facts, and against Google's implementation."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from noded.wire import ttrpc, ttrpc_metrics, ttrpc_task
from noded.wire.protobuf import scan
from noded.wire.ttrpc_protobuf import Message, kinds

HERE = Path(__file__).parent
TABLES = ("containerd-task-v2", "runc-options-v1", "runtimeoptions-v1", "cgroup1-metrics", "cgroup2-metrics")

# Facts that no table has: well-known types, and ttrpc's own messages.
WELL_KNOWN = {
    ("google.protobuf.Any", "type_url", 1, "string", ""),
    ("google.protobuf.Any", "value", 2, "bytes", ""),
    ("google.protobuf.Timestamp", "seconds", 1, "int64", ""),
    ("google.protobuf.Timestamp", "nanos", 2, "int32", ""),
    ("ttrpc.KeyValue", "key", 1, "string", ""),
    ("ttrpc.KeyValue", "value", 2, "string", ""),
    ("ttrpc.Request", "service", 1, "string", ""),
    ("ttrpc.Request", "method", 2, "string", ""),
    ("ttrpc.Request", "payload", 3, "bytes", ""),
    ("ttrpc.Request", "timeout_nano", 4, "int64", ""),
    ("ttrpc.Request", "metadata", 5, "ttrpc.KeyValue", "repeated"),
    ("google.rpc.Status", "code", 1, "int32", ""),
    ("google.rpc.Status", "message", 2, "string", ""),
    ("ttrpc.Response", "status", 1, "google.rpc.Status", ""),
    ("ttrpc.Response", "payload", 2, "bytes", ""),
}


def table(name):
    with (HERE / f"{name}.tsv").open() as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            if row["kind"] == "field":
                yield row["owner"], row["name"], int(row["number"]), row["type"], row["label_or_reply"]


def declared():
    """All message classes with a name of the protocol."""
    found = {}
    for module in (ttrpc, ttrpc_task, ttrpc_metrics):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Message) and value.NAME:
                found[value.NAME] = value
    return found


def facts_of(cls):
    for name, kind in kinds(cls).items():
        word = {"message": kind.of.NAME if kind.of else "", "map": "map<string,string>"}.get(
            kind.word, kind.word
        )
        yield cls.NAME, name, kind.number, word, "repeated" if kind.repeated else ""


def test_every_declared_field_is_a_fact():
    known = WELL_KNOWN | {fact for name in TABLES for fact in table(name)}
    ours = {fact for cls in declared().values() for fact in facts_of(cls)}
    assert ours - known == set()


def test_the_task_service_is_declared_completely_but_for_checkpoints():
    ours = {fact for cls in declared().values() for fact in facts_of(cls)}
    unused = ("ActiveMount", "ActivationInfo", "v1.types", "Checkpoint", "Pids")
    theirs = {fact for fact in table("containerd-task-v2") if not any(word in fact[0] for word in unused)}
    assert theirs - ours == set()


def test_version_3_of_the_task_service_differs_in_name_only():
    def renamed(name):
        return [tuple(str(item).replace("task.v3", "task.v2") for item in fact) for fact in table(name)]

    assert renamed("containerd-task-v3") == renamed("containerd-task-v2")
    assert ttrpc_task.SERVICES == {2: "containerd.task.v2.Task", 3: "containerd.task.v3.Task"}


def test_every_called_method_is_a_fact():
    with (HERE / "containerd-task-v2.tsv").open() as lines:
        methods = {row["name"] for row in csv.DictReader(lines, delimiter="\t") if row["kind"] == "rpc"}
    text = (HERE.parents[2] / "noded/runtimes/shim_service.py").read_text()
    called = {word for word in methods if f'"{word}"' in text}
    assert methods - called == {"Checkpoint", "Pids"}


# against Google's implementation, from descriptors built of our declarations


SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("string", "bytes", "bool", "int32", "int64", "uint32", "uint64")
}


def google_classes():
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="all.proto", package="t", syntax="proto3")
    for name, cls in declared().items():
        message = file.message_type.add(name=name.replace(".", "_"))
        for field_name, kind in kinds(cls).items():
            field = message.field.add(name=field_name, number=kind.number, label=3 if kind.repeated else 1)
            if kind.word == "message":
                field.type, field.type_name = 11, ".t." + kind.of.NAME.replace(".", "_")
            elif kind.word == "map":
                entry = message.nested_type.add(name=f"{field_name.title()}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, label=1, type=9)
                entry.field.add(name="value", number=2, label=1, type=9)
                field.type, field.label = 11, 3
                field.type_name = f".t.{message.name}.{entry.name}"
            else:
                field.type = SCALARS.get(kind.word, SCALARS["int32"])
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName("t." + name.replace(".", "_")))
        for name in declared()
    }


GOOGLE = google_classes()
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
VALUES = {
    "string": TEXT,
    "bytes": st.binary(max_size=40),
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "map": st.dictionaries(TEXT, TEXT, max_size=4),
}


def instances(cls):
    fields = {}
    for name, kind in kinds(cls).items():
        one = instances(kind.of) if kind.word == "message" else VALUES.get(kind.word, VALUES["int32"])
        if kind.repeated:
            fields[name] = st.lists(one, max_size=3).map(tuple)
        elif kind.word == "message":
            fields[name] = st.none() | one
        else:
            fields[name] = one
    return st.builds(cls, **fields)


def to_google(message):
    made = GOOGLE[message.NAME]()
    for name, kind in kinds(type(message)).items():
        value = getattr(message, name)
        if kind.word == "map":
            getattr(made, name).update(value)
        elif kind.repeated:
            getattr(made, name).extend(to_google(item) if kind.of else item for item in value)
        elif kind.word == "message":
            if value is not None:
                getattr(made, name).CopyFrom(to_google(value))
        else:
            setattr(made, name, value)
    return made


@pytest.mark.parametrize("cls", declared().values(), ids=lambda cls: cls.NAME)
def test_encoding_and_decoding_agree_with_google(cls):
    @given(instances(cls))
    def check(message):
        theirs = to_google(message).SerializeToString(deterministic=True)
        assert GOOGLE[cls.NAME].FromString(message.encode()) == to_google(message)
        assert cls.decode(theirs) == message
        assert cls.decode(message.encode()) == message

    check()


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused_with_the_name_of_the_message(data):
    for cls in (ttrpc.Request, ttrpc.Response, ttrpc_task.StateResponse, ttrpc_task.UpdateTaskRequest):
        problem = ""
        try:
            cls.decode(data)
        except ValueError as error:
            problem = str(error)
        assert not problem or any(name in problem for name in declared())


@given(st.binary(max_size=100), st.integers(1, 2**29 - 1), st.binary(max_size=30))
def test_unknown_fields_are_skipped(payload, number, noise):
    known = {kind.number for kind in kinds(ttrpc.Response).values()}
    if number in known:
        return
    response = ttrpc.Response(payload=payload)
    from noded.wire.ttrpc_protobuf import _put_bytes

    extra = bytearray()
    _put_bytes(extra, number, noise)
    assert ttrpc.Response.decode(bytes(extra) + response.encode() + bytes(extra)) == response


def test_a_field_of_another_wire_type_is_skipped():
    assert ttrpc_task.StartResponse.decode(b"\x0a\x01x") == ttrpc_task.StartResponse()


def test_parts_of_a_submessage_are_merged():
    one = ttrpc.Response(ttrpc.Status(code=5)).encode()
    two = ttrpc.Response(ttrpc.Status(message="gone")).encode()
    assert ttrpc.Response.decode(one + two) == ttrpc.Response(ttrpc.Status(5, "gone"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a", "cut"),
        (b"\x0a\x05abc", "says 5 bytes, but 3 are left"),
        (b"\x0b", "wire type 3"),
        (b"\x00", "field number 0"),
        (b"\xff" * 11, "more than 10 bytes"),
        (b"\x0a\x02\xff\xfe", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_said(data, words):
    with pytest.raises(ValueError, match=rf"StartRequest.*{words}|{words}"):
        ttrpc_task.StartRequest.decode(data)


def test_scan_yields_what_is_there():
    assert list(scan(b"\x08\x96\x01\x12\x02hi\x1d\1\2\3\4")) == [
        (1, 0, 150),
        (2, 2, b"hi"),
        (3, 5, b"\1\2\3\4"),
    ]


def test_metrics_of_both_cgroup_versions_become_the_same_numbers():
    m = ttrpc_metrics
    v1 = m.MetricsV1(
        m.PidsV1(3), m.CpuV1(m.CpuUsageV1(5_000_000)), m.MemoryV1(100, m.MemoryEntryV1(4096, 1000))
    )
    v2 = m.MetricsV2(m.PidsV2(3), m.CpuV2(5_000), m.MemoryV2(100, 1000, 4096))
    expected = m.TaskStats(5_000_000, 1000, 900, 4096, 3)
    for metrics in (v1, v2):
        for prefix in ("", "type.googleapis.com/"):
            packed = dataclasses.replace(ttrpc_task.packed(metrics), type_url=prefix + metrics.NAME)
            assert m.parse_stats(packed) == expected
    with pytest.raises(ValueError, match="unknown type 'x/y'"):
        m.parse_stats(ttrpc_task.Any("x/y"))
    assert m.parse_stats(ttrpc_task.packed(m.MetricsV2())) == m.TaskStats()
