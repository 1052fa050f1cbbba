"""The packet codec against what go-micro sent, and against what nobody should send."""

from __future__ import annotations

import random

import pytest

from svcreg.errors import ProtocolError
from svcreg_mdns.gomicro import packets
from svcreg_mdns.gomicro.packets import AAAA, PTR, SRV, TXT, A, Question, Record
from tests.support.mdns_gomicro import captured, query

PROBES, ANNOUNCEMENTS, QUESTIONS, ANSWERS, GOODBYE = (
    (0, 1, 2),
    (3, 4, 7),
    (5, 6),
    (8, 9, 10, 11, 12, 13),
    14,
)
NODE = "greeter-aaa.greeter.micro."


@pytest.mark.parametrize("index", [*ANNOUNCEMENTS, *ANSWERS, GOODBYE])
def test_a_response_of_go_micros_is_written_byte_for_byte(index: int) -> None:
    packet = captured()[index]
    message = packets.decode(packet)
    assert message.is_response
    question = message.questions[0] if message.questions else None
    written = packets.encode_response(message.records, question=question, number=message.number)
    assert written == packet


@pytest.mark.parametrize("index", QUESTIONS)
def test_a_question_of_go_micros_is_written_byte_for_byte(index: int) -> None:
    packet = captured()[index]
    message = packets.decode(packet)
    ((name, kind, _),) = message.questions
    assert packets.encode_query(name, kind, message.number) == packet
    assert not message.is_response


@pytest.mark.parametrize("index", PROBES)
def test_a_probe_is_a_question_whose_records_do_not_count(index: int) -> None:
    message = packets.decode(captured()[index])
    assert message.questions == (Question(NODE, PTR),)
    assert message.records == ()


def test_an_announcement_has_its_records_in_the_order_that_go_needs() -> None:
    message = packets.decode(captured()[ANNOUNCEMENTS[0]])
    assert [record.kind for record in message.records] == [SRV, A, TXT]
    service, address, text = message.records
    assert (service.name, service.target, service.port, service.ttl) == (NODE, "vm.", 8080, 120)
    assert (address.name, address.data) == ("vm.", bytes([10, 77, 0, 2]))
    assert (text.name, len(text.data)) == (NODE, 364)
    assert [r.ttl for r in packets.decode(captured()[GOODBYE]).records] == [0, 0, 0]


def test_an_empty_text_record_is_read() -> None:
    message = packets.decode(captured()[ANSWERS[1]])
    assert message.records[-1] == Record("greeter._services.micro.", TXT, 120)


def test_an_answer_is_given_to_another_asker_with_its_own_number_and_unicast_bit() -> None:
    plain, unicast = (captured()[index] for index in (8, 10))
    question = packets.decode(unicast).questions[0]
    assert question.class_ == 0x8001
    assert packets.readdress(plain, question, 0x1236) == unicast


def test_ipv6_addresses_are_read_and_written() -> None:
    record = Record("vm.", AAAA, 60, bytes(range(16)))
    assert packets.decode(packets.encode_response([record])).records == (record,)


def test_a_name_that_text_cannot_hold_comes_out_empty() -> None:
    for label in (b"a.b", b"\xc3\xa4"):
        packet = query("xxx.micro").replace(b"\x03xxx", bytes([len(label)]) + label)
        assert packets.decode(packet).questions[0].name == ""


HEADER = bytes.fromhex("0000800000010001000000 00".replace(" ", ""))


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "cut short"),
        (b"\0" * 11, "cut short"),
        (HEADER + b"\xc0\x0c", "does not point back"),
        (HEADER + b"\x01a\xc0\x0c", "does not point back"),
        (HEADER + b"\x01a\xc0\xff", "does not point back"),
        (HEADER + b"\x40" + b"a" * 64, "too long"),
        (HEADER + (b"\x3f" + b"a" * 63) * 4 + b"\0", "too long"),
        (HEADER + b"\x05ab", "cut short"),
        (HEADER[:5] + b"\x11" + HEADER[6:] + b"\0" * 400, "more questions"),
        (HEADER[:7] + b"\x41" + HEADER[8:] + b"\0" * 400, "more questions or records"),
        (HEADER[:2] + b"\x88" + HEADER[3:], "opcode"),
        (HEADER[:3] + b"\x03" + HEADER[4:], "error code"),
        (captured()[3][:-1], "cut short"),
    ],
)
def test_a_damaged_packet_is_refused(packet: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        packets.decode(packet)


def test_pointers_to_pointers_end() -> None:
    chain = b"".join(bytes([0xC0, 12 + 2 * n]) for n in range(60))
    packet = HEADER[:4] + b"\0\0\0\1\0\0\0\0" + b"\0\0" + chain + b"\0" * 10
    with pytest.raises(ProtocolError):
        packets.decode(packet)


def test_no_packet_raises_anything_else() -> None:
    chance = random.Random(5)
    known = captured()
    for _ in range(20_000):
        packet = bytearray(chance.choice(known))
        for _ in range(chance.randint(1, 6)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        try:
            packets.decode(bytes(packet[: chance.randint(1, len(packet))]))
        except ProtocolError:
            pass
