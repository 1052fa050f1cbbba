"""Messages built at run time are etcd's on the wire, and clash with nobody's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from svcreg_etcd import messages as m


def test_wire_form() -> None:
    """Bytes as written down from the encoding rules: (number << 3 | type), length, content."""
    put = m.PutRequest(key=b"k", value=b"v", lease=300)
    assert put.SerializeToString() == b"\x0a\x01k\x12\x01v\x18\xac\x02"
    compare = m.Compare(target=m.TARGET_LEASE, key=b"k", lease=5)
    txn = m.TxnRequest(compare=[compare], success=[m.RequestOp(request_put=put)])
    inner = b"\x10\x04\x1a\x01k\x40\x05"
    operation = b"\x12\x09" + put.SerializeToString()
    assert txn.SerializeToString() == (
        b"\x0a" + bytes([len(inner)]) + inner + b"\x12" + bytes([len(operation)]) + operation
    )


def test_unknown_fields_are_skipped() -> None:
    raw = b"\x12\x03\x0a\x01k" + b"\xa0\x06\x01" + b"\x18\x01"  # kvs, field 100, more
    answer = m.RangeResponse.FromString(raw)
    assert [kv.key for kv in answer.kvs] == [b"k"]
    assert answer.more


# What the generated code of another etcd client does when it is imported: its files and messages,
# named as etcd names them, go into the pool that all libraries of a process share.
OTHER_CLIENT = """
from google.protobuf import descriptor_pb2, descriptor_pool
for name, message in (("rpc", "RangeRequest"), ("kv", "KeyValue"), ("auth", "User")):
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="etcdserverpb")
    file.message_type.add(name=message)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""
OURS = """
from svcreg_etcd import messages
assert messages.RangeRequest(key=b"k").SerializeToString() == b"\\x0a\\x01k"
"""


@pytest.mark.parametrize("program", [OTHER_CLIENT + OURS, OURS + OTHER_CLIENT])
def test_other_clients_of_etcd_may_be_imported_before_and_after(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("implementation", ["python", "upb"])
def test_every_implementation_of_protobuf_will_do(implementation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OURS],
        env={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
