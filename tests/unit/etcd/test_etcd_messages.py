"""Messages built at run time are etcd's on the wire, and clash with nobody's."""

from __future__ import annotations

from google.protobuf import descriptor_pool

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


def test_default_pool_knows_nothing_of_them() -> None:
    try:
        descriptor_pool.Default().FindMessageTypeByName("etcdserverpb.RangeRequest")
    except KeyError:
        return
    raise AssertionError("the messages are in the pool that all libraries share")
