"""proto/cri.proto and proto/nri.proto against the table of facts, and noded/proto against proto/."""

from __future__ import annotations

import csv
import filecmp
import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).parents[3]
TABLES = {
    "cri": (Path(__file__).with_name("cri-runtime-v1.tsv"), "runtime.v1", 41),
    "nri": (Path(__file__).with_name("nri-v1alpha1.tsv"), "nri.pkg.api.v1alpha1", 20),
}


@pytest.fixture(params=TABLES)
def facts_and_table(request, tmp_path):
    table, package, rpcs = TABLES[request.param]
    output = tmp_path / "descriptor.binpb"
    source = f"{request.param}.proto"
    status = protoc.main(
        ["protoc", f"--proto_path={ROOT / 'proto'}", f"--descriptor_set_out={output}", source]
    )
    assert status == 0
    (file,) = FileDescriptorSet.FromString(output.read_bytes()).file
    assert file.package == package
    assert file.syntax == "proto3"
    return set(facts(file)), set(rows(table)), rpcs


# What only plugins that run as WebAssembly inside the runtime use, and numbers that no message has
# as its type.
NOT_OURS = tuple(f"nri.pkg.api.v1alpha1.{name}." for name in ("HostFunctions", "LogRequest", "Field"))


def type_of(field):
    scalar = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return field.type_name.removeprefix(".") or scalar


def facts_of_message(message, name):
    maps = {f".{name}.{inner.name}": inner for inner in message.nested_type if inner.options.map_entry}
    for field in message.field:
        if field.type_name in maps:
            key, value = maps[field.type_name].field
            kind, label = f"map<{type_of(key)},{type_of(value)}>", ""
        else:
            repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
            kind, label = type_of(field), "repeated" if repeated else ""
        note = "deprecated" if field.options.deprecated else ""
        yield "field", name, field.name, str(field.number), kind, label, note
    if not message.field:
        yield "message", name, "", "", "", "", ""
    for enum in message.enum_type:
        yield from facts_of_enum(enum, f"{name}.{enum.name}")
    for inner in message.nested_type:
        if not inner.options.map_entry:
            yield from facts_of_message(inner, f"{name}.{inner.name}")


def facts_of_enum(enum, name):
    for value in enum.value:
        yield "enum", name, value.name, str(value.number), "", "", ""


def facts(file):
    for service in file.service:
        for method in service.method:
            assert not method.client_streaming
            reply = ("stream " if method.server_streaming else "") + method.output_type.removeprefix(".")
            request = method.input_type.removeprefix(".")
            yield "rpc", f"{file.package}.{service.name}", method.name, "", request, reply, ""
    for enum in file.enum_type:
        yield from facts_of_enum(enum, f"{file.package}.{enum.name}")
    for message in file.message_type:
        yield from facts_of_message(message, f"{file.package}.{message.name}")


def rows(table):
    with table.open() as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            row["note"] = row["note"].strip()
            if not f"{row['owner']}.".startswith(NOT_OURS):
                yield tuple(row.values())


def test_the_proto_file_states_every_fact_of_the_table_and_nothing_else(facts_and_table):
    ours, theirs, rpcs = facts_and_table
    assert ours - theirs == set()
    assert theirs - ours == set()
    assert sum(fact[0] == "rpc" for fact in ours) == rpcs


def test_every_rpc_has_a_comment():
    lines = [line.strip() for line in (ROOT / "proto/cri.proto").read_text().splitlines()]
    silent = [
        line for before, line in pairwise(lines) if line.startswith("rpc ") and not before.startswith("//")
    ]
    assert silent == []


def test_the_generated_package_is_what_the_sources_give(tmp_path):
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto/generate.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    fresh, committed = tmp_path / "proto", ROOT / "noded/proto"
    generator.generate(fresh)

    names = sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file())
    there = sorted(
        str(path.relative_to(committed))
        for path in committed.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert there == names
    _, different, missing = filecmp.cmpfiles(fresh, committed, names, shallow=False)
    assert (different, missing) == ([], []), "run proto/generate.py"


def test_importing_the_messages_imports_no_grpc_and_no_google_protobuf():
    program = (
        "import sys, noded.proto.runtime.v1, noded.proto.noded.admin.v1, "
        "noded.proto.nri.pkg.api.v1alpha1\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('grpc', 'grpclib', 'google')])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
