"""What go-micro writes, as `tests/interop/recording.py` has recorded it; needs no Go."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from svcreg import Service
from svcreg.codec import decode_service

FOLDER = Path(__file__).parents[1] / "interop" / "vectors"
TXT = 16  # RFC 1035 section 3.2.2
Vector = dict[str, Any]


def services() -> list[dict[str, Any]]:
    """Return what was registered, as Go reads it; the last two of one name are its versions."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "services.json").read_text())
    return found


def vectors(name: str) -> list[Vector]:
    """Return what was recorded: `etcd`, `consul` or `mdns`, each with the service it is of."""
    found: list[Vector] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def as_service(service: dict[str, Any]) -> Service:
    """Return what a vector's service is to Python."""
    return decode_service(json.dumps(service))


def without_null(text: str) -> str:
    """Return Go's JSON with every map or list that is not there written as an empty one.

    Go tells the two apart when it writes, not when it reads; svcreg has empty ones only.
    """
    text = re.sub(r'"metadata":null', '"metadata":{}', text)
    return re.sub(r'"(endpoints|nodes|values)":null', r'"\1":[]', text)


def plain_tag(tag: str) -> str:
    """Return one of Consul's tags as it was before compression, which differs between zlibs."""
    return tag[:2] + zlib.decompress(bytes.fromhex(tag[2:])).decode()


def plain_packet(packet: str) -> str:
    """Return a packet, in hexadecimal, with its TXT records as they were before compression."""
    raw = bytes.fromhex(packet)
    questions, *records = (int.from_bytes(raw[at : at + 2]) for at in range(4, 12, 2))
    shown, at, copied = [], 12, 0
    for _ in range(questions):
        at = _after_name(raw, at) + 4
    for _ in range(sum(records)):
        at = _after_name(raw, at)
        kind, length = int.from_bytes(raw[at : at + 2]), int.from_bytes(raw[at + 8 : at + 10])
        if kind == TXT and length > 1:
            shown += [raw[copied : at + 8].hex(), _plain_txt(raw[at + 10 : at + 10 + length])]
            copied = at + 10 + length
        at += 10 + length
    return " ".join([*shown, raw[copied:].hex()])


def _after_name(raw: bytes, at: int) -> int:
    while (length := raw[at]) != 0:
        if length >= 0xC0:  # RFC 1035 section 4.1.4: a pointer ends a name
            return at + 2
        at += 1 + length
    return at + 1


def _plain_txt(data: bytes) -> str:
    strings, at = b"", 0
    while at < len(data):
        strings += data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    return zlib.decompress(bytes.fromhex(strings.decode())).decode()
