"""etcd's protobuf messages, built at import from a table of field numbers.

There is no generated code, which would pin a version of protobuf, and the descriptors live in a
pool of their own, so that they clash with no other etcd client in the same process. Only what this
plugin sends or reads is in the table; protobuf skips fields that it does not know.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "etcdserverpb"

_REPEATED = "*"
_TYPES: Final = {
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,  # on the wire an enumeration is one
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}

# etcd api/etcdserverpb/rpc.proto and api/mvccpb/kv.proto, as of 3.4 to 3.6. A field that stands in
# a oneof there is a message or is told apart by its value here, so the oneof itself is not needed.
_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "ResponseHeader": {"revision": (3, "int64")},
    "KeyValue": {
        "key": (1, "bytes"),
        "create_revision": (2, "int64"),
        "mod_revision": (3, "int64"),
        "value": (5, "bytes"),
        "lease": (6, "int64"),
    },
    "Event": {"type": (1, "int32"), "kv": (2, "KeyValue")},
    "RangeRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "limit": (3, "int64"),
        "revision": (4, "int64"),
        "serializable": (7, "bool"),
        "keys_only": (8, "bool"),
    },
    "RangeResponse": {
        "header": (1, "ResponseHeader"),
        "kvs": (2, "*KeyValue"),
        "more": (3, "bool"),
    },
    "PutRequest": {"key": (1, "bytes"), "value": (2, "bytes"), "lease": (3, "int64")},
    "DeleteRangeRequest": {"key": (1, "bytes")},
    "RequestOp": {
        "request_range": (1, "RangeRequest"),
        "request_put": (2, "PutRequest"),
        "request_delete_range": (3, "DeleteRangeRequest"),
    },
    "ResponseOp": {"response_range": (1, "RangeResponse")},
    "Compare": {
        "result": (1, "int32"),
        "target": (2, "int32"),
        "key": (3, "bytes"),
        "mod_revision": (6, "int64"),
        "lease": (8, "int64"),
    },
    "TxnRequest": {"compare": (1, "*Compare"), "success": (2, "*RequestOp")},
    "TxnResponse": {
        "header": (1, "ResponseHeader"),
        "succeeded": (2, "bool"),
        "responses": (3, "*ResponseOp"),
    },
    "LeaseGrantRequest": {"TTL": (1, "int64"), "ID": (2, "int64")},
    "LeaseGrantResponse": {"ID": (2, "int64"), "TTL": (3, "int64")},
    "LeaseRevokeRequest": {"ID": (1, "int64")},
    "LeaseRevokeResponse": {},
    "LeaseKeepAliveRequest": {"ID": (1, "int64")},
    "LeaseKeepAliveResponse": {"ID": (2, "int64"), "TTL": (3, "int64")},
    "LeaseTimeToLiveRequest": {"ID": (1, "int64"), "keys": (2, "bool")},
    "LeaseTimeToLiveResponse": {"ID": (2, "int64"), "TTL": (3, "int64"), "keys": (5, "*bytes")},
    "WatchCreateRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "start_revision": (3, "int64"),
        "fragment": (8, "bool"),
    },
    "WatchCancelRequest": {"watch_id": (1, "int64")},
    "WatchRequest": {
        "create_request": (1, "WatchCreateRequest"),
        "cancel_request": (2, "WatchCancelRequest"),
    },
    "WatchResponse": {
        "header": (1, "ResponseHeader"),
        "watch_id": (2, "int64"),
        "created": (3, "bool"),
        "canceled": (4, "bool"),
        "compact_revision": (5, "int64"),
        "cancel_reason": (6, "string"),
        "fragment": (7, "bool"),
        "events": (11, "*Event"),
    },
    "AuthenticateRequest": {"name": (1, "string"), "password": (2, "string")},
    "AuthenticateResponse": {"token": (2, "string")},
}

COMPARE_EQUAL: Final = 0
TARGET_MOD: Final = 2
TARGET_LEASE: Final = 4
EVENT_DELETE: Final = 1


def _file() -> descriptor_pb2.FileDescriptorProto:
    """Return the table as the description of one proto3 file."""
    file = descriptor_pb2.FileDescriptorProto(
        name="svcreg_etcd.proto", package=_PACKAGE, syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            is_repeated = kind.startswith(_REPEATED)
            kind = kind.removeprefix(_REPEATED)
            field.label = field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
    return file


def _build() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    # GetMessageClass came with protobuf 4.22; what it replaced went with 5.
    get_class: Any = getattr(message_factory, "GetMessageClass", None)
    if get_class is None:
        factory: Any = message_factory.MessageFactory(pool)
        get_class = factory.GetPrototype
    return {name: get_class(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


_classes = _build()

AuthenticateRequest: Any = _classes["AuthenticateRequest"]
AuthenticateResponse: Any = _classes["AuthenticateResponse"]
Compare: Any = _classes["Compare"]
DeleteRangeRequest: Any = _classes["DeleteRangeRequest"]
LeaseGrantRequest: Any = _classes["LeaseGrantRequest"]
LeaseGrantResponse: Any = _classes["LeaseGrantResponse"]
LeaseKeepAliveRequest: Any = _classes["LeaseKeepAliveRequest"]
LeaseKeepAliveResponse: Any = _classes["LeaseKeepAliveResponse"]
LeaseRevokeRequest: Any = _classes["LeaseRevokeRequest"]
LeaseRevokeResponse: Any = _classes["LeaseRevokeResponse"]
LeaseTimeToLiveRequest: Any = _classes["LeaseTimeToLiveRequest"]
LeaseTimeToLiveResponse: Any = _classes["LeaseTimeToLiveResponse"]
PutRequest: Any = _classes["PutRequest"]
RangeRequest: Any = _classes["RangeRequest"]
RangeResponse: Any = _classes["RangeResponse"]
RequestOp: Any = _classes["RequestOp"]
TxnRequest: Any = _classes["TxnRequest"]
TxnResponse: Any = _classes["TxnResponse"]
WatchCancelRequest: Any = _classes["WatchCancelRequest"]
WatchCreateRequest: Any = _classes["WatchCreateRequest"]
WatchRequest: Any = _classes["WatchRequest"]
WatchResponse: Any = _classes["WatchResponse"]
