"""DNS packets, as far as go-micro's dialect needs them; pure, and suspicious of whatever it reads.

Written as go-micro writes them (miekg/dns): announcements uncompressed, answers compressed, so that
packets are equal byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from svcreg.errors import ProtocolError

A, PTR, TXT = 1, 12, 16  # RFC 1035 section 3.2.2
AAAA = 28  # RFC 3596 section 2.1
SRV = 33  # RFC 2782
ANY = 255  # RFC 1035 section 3.2.3

IN = 1
"""Class of all records; in a question the top bit next to it asks for a unicast answer."""

RESPONSE = 0x8000
"""Flags of go-micro's announcements and goodbyes: it leaves out the AA bit there."""

ANSWER = 0x8400
"""Flags of answers: response and authoritative (RFC 6762 sections 18.2 and 18.4)."""

LABEL_LIMIT = 63
"""Bytes of one label of a name (RFC 1035 section 2.3.4)."""

NAME_LIMIT = 254
"""Bytes of a whole name on the wire, the zero at its end not counted (RFC 1035 section 2.3.4)."""

QUESTION_LIMIT = 16
"""Questions read of one packet; go-micro asks one."""

RECORD_LIMIT = 64
"""Records read of one packet; go-micro sends at most five."""

READER_OF_BOTH = 0
"""Number of questions from readers of both dialects, as RFC 6762 section 18.1 has it: they find
what we announce in DNS-SD only. go-micro, and whoever reads nothing else, takes random numbers."""

_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HHIH")
_SRV = struct.Struct("!3H")
_PRIORITY, _WEIGHT = 10, 1  # go-micro internal/util/mdns/zone.go, instanceRecords


class Question(NamedTuple):
    """What is asked for; `class_` holds the unicast bit too."""

    name: str
    kind: int
    class_: int = IN


class Record(NamedTuple):
    """One resource record; names are text that ends with a dot.

    Attributes:
        data: Of A, AAAA and TXT records, as on the wire.
        target: Of PTR and SRV records.
        port: Of SRV records.
    """

    name: str
    kind: int
    ttl: int
    data: bytes = b""
    target: str = ""
    port: int = 0


class Message(NamedTuple):
    """One packet; `records` are those of known kinds from the answer and additional sections."""

    number: int
    is_response: bool
    questions: tuple[Question, ...]
    records: tuple[Record, ...]


def encode_query(name: str, kind: int, number: int) -> bytes:
    """Return a packet with one question."""
    return _HEADER.pack(number, 0, 1, 0, 0, 0) + encode_question(Question(name, kind))


def encode_question(question: Question) -> bytes:
    """Return one question as on the wire."""
    writer = _Writer(0)
    writer.add_name(question.name, is_compressed=False)
    return bytes(writer.data) + struct.pack("!HH", question.kind, question.class_)


def encode_response(
    records: Iterable[Record], *, question: Question | None = None, number: int = 0
) -> bytes:
    """Return an announcement, or with a question the answer to it."""
    records = list(records)
    flags, count = (RESPONSE, 0) if question is None else (ANSWER, 1)
    writer = _Writer(_HEADER.size)
    if question is not None:
        writer.add_name(question.name, is_compressed=True)
        writer.data += struct.pack("!HH", question.kind, question.class_)
    for record in records:
        writer.add_record(record, is_compressed=question is not None)
    return _HEADER.pack(number, flags, count, len(records), 0, 0) + bytes(writer.data)


def readdress(answer: bytes, question: Question, number: int) -> bytes:
    """Return the answer to an equal question with its own number and unicast bit."""
    asked = encode_question(question)
    head = struct.pack("!H", number) + answer[2 : _HEADER.size]
    return head + asked + answer[_HEADER.size + len(asked) :]


def decode(packet: bytes) -> Message:
    """Return what a packet says.

    Names that cannot be written as text with dots between their labels come out empty.

    Raises:
        ProtocolError: It is damaged, or has more questions or records than can be meant well.
    """
    try:
        return _decode(packet)
    except (struct.error, IndexError):
        raise ProtocolError("packet is cut short") from None


def _decode(packet: bytes) -> Message:
    number, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & 0x780F:  # RFC 6762 sections 18.3 and 18.11: other opcodes and errors are ignored
        raise ProtocolError("packet has an opcode or error code, which multicast DNS has not")
    if questions > QUESTION_LIMIT or answers + authorities + additionals > RECORD_LIMIT:
        raise ProtocolError("packet has more questions or records than are read")
    position = _HEADER.size
    asked = []
    for _ in range(questions):
        name, position = _read_name(packet, position)
        asked.append(Question(name, *struct.unpack_from("!HH", packet, position)))
        position += 4
    is_response = bool(flags & RESPONSE)
    if not is_response:  # what a query brings along, such as the records of a probe, is no answer
        return Message(number, is_response, tuple(asked), ())
    records = []
    for index in range(answers + authorities + additionals):
        record, position = _read_record(packet, position)
        if record is not None and not answers <= index < answers + authorities:
            records.append(record)
    return Message(number, is_response, tuple(asked), tuple(records))


def _read_record(packet: bytes, position: int) -> tuple[Record | None, int]:
    """Return one record, or None for an unknown kind, and where the next one begins."""
    name, position = _read_name(packet, position)
    kind, _, ttl, length = _FIXED.unpack_from(packet, position)
    begin = position + _FIXED.size
    end = begin + length
    if end > len(packet):
        raise ProtocolError("packet is cut short")
    record = None
    if kind in (A, AAAA):
        if length != (4 if kind == A else 16):
            raise ProtocolError(f"address record has {length} bytes")
        record = Record(name, kind, ttl, packet[begin:end])
    elif kind == TXT:
        record = Record(name, kind, ttl, packet[begin:end])
    elif kind == PTR:
        record = Record(name, kind, ttl, target=_read_name(packet, begin)[0])
    elif kind == SRV:
        _, _, port = _SRV.unpack_from(packet, begin)
        target, _ = _read_name(packet, begin + _SRV.size)
        record = Record(name, kind, ttl, target=target, port=port)
    return record, end


def _read_name(packet: bytes, position: int) -> tuple[str, int]:
    """Return a name, and where it ends."""
    labels: list[bytes] = []
    after = 0
    size = 0
    segment = position
    while length := packet[position]:
        if length >= 0xC0:
            pointer = (length & 0x3F) << 8 | packet[position + 1]
            after = after or position + 2
            if pointer >= segment:  # each leads further back, so there can be no loop
                raise ProtocolError("compressed name does not point back")
            segment = position = pointer
            continue
        end = position + 1 + length
        size += 1 + length
        if length > LABEL_LIMIT or size > NAME_LIMIT or end > len(packet):
            raise ProtocolError("name is too long or cut short")
        labels.append(packet[position + 1 : end])
        position = end
    joined = b".".join([*labels, b""])
    plain = joined.isascii() and joined.count(b".") == len(labels)
    return joined.decode("ascii") if plain else "", after or position + 1


class _Writer:
    """Collects the bytes that follow the header, and remembers where names stand."""

    def __init__(self, begin: int) -> None:
        self.data = bytearray()
        self._begin = begin
        self._known: dict[str, int] = {}

    def add_record(self, record: Record, *, is_compressed: bool) -> None:
        self.add_name(record.name, is_compressed=is_compressed)
        self.data += _FIXED.pack(record.kind, IN, record.ttl, 0)
        begin = len(self.data)
        if record.kind == SRV:
            self.data += _SRV.pack(_PRIORITY, _WEIGHT, record.port)
            self.add_name(record.target, is_compressed=False)  # RFC 2782: never compressed
        elif record.kind == PTR:
            self.add_name(record.target, is_compressed=is_compressed)
        else:
            self.data += record.data
        struct.pack_into("!H", self.data, begin - 2, len(self.data) - begin)

    def add_name(self, name: str, *, is_compressed: bool) -> None:
        rest = name
        while rest:
            if is_compressed and rest in self._known:
                self.data += struct.pack("!H", 0xC000 | self._known[rest])
                return
            offset = self._begin + len(self.data)
            if offset < 0x4000:  # a pointer has 14 bits
                self._known.setdefault(rest, offset)
            label, _, rest = rest.partition(".")
            self.data += bytes([len(label)]) + label.encode()
        self.data.append(0)
