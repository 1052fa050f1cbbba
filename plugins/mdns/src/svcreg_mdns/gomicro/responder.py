"""Answers questions for the nodes of this program, as go-micro expects it."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from svcreg_mdns.gomicro import packets
from svcreg_mdns.gomicro.held import MULTICAST_SECONDS, Holdings
from svcreg_mdns.gomicro.packets import ANY, IN, PTR, READER_OF_BOTH, Message, Question
from svcreg_mdns.gomicro.records import Names
from svcreg_mdns.gomicro.sockets import BURST_PACKETS, PORT, Sockets, Source, send_paced

ANSWERS_AT_ONCE = 64
"""Longer answers under way at the same time; further questions are lost, as on a busy link."""

_UNICAST_BIT = 0x8000

_log = logging.getLogger("svcreg.mdns")


class Responder:
    """Answers for what is held. Loop only.

    Args:
        sockets: Where to.
        names: Those of the domain.
        holdings: What is announced.
    """

    def __init__(self, sockets: Sockets, names: Names, holdings: Holdings) -> None:
        self._sockets = sockets
        self._names = names
        self._holdings = holdings
        self._listed_at = -MULTICAST_SECONDS
        self._warned: set[str] = set()
        self._answering: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End the answers under way."""
        answering = set(self._answering)
        for task in answering:
            task.cancel()
        if answering:
            await asyncio.wait(answering)

    def hear_question(self, message: Message, source: Source) -> None:
        """Answer a query, at once: go-micro waits for 100 ms.

        Whoever asks from port 5353 is told by multicast and without the question: if it is a
        go-micro server, it would answer the question in our answer.
        """
        for question in dict.fromkeys(message.questions):  # each once, however often it is put
            if question.class_ & ~_UNICAST_BIT not in (IN, ANY):
                continue
            if message.number != READER_OF_BOTH:
                self._warn_if_versionless(self._names.asked(question.name))
            if source.port == PORT:
                answers, send = self._multicast_answers(question), self._sockets.announce
            else:
                answers = self._answers(question, message.number)
                send = partial(self._sockets.answer, to=source)
            if len(answers) <= BURST_PACKETS:
                for answer in answers:
                    send(answer)
            elif len(self._answering) < ANSWERS_AT_ONCE:
                task = asyncio.create_task(send_paced(answers, send))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    def _answers(self, question: Question, number: int) -> list[bytes]:
        if question.name != self._names.list:
            return [held.answer(question, number) for held in self._holdings.asked_for(question)]
        if question.kind not in (PTR, ANY):
            return []
        return [
            packets.encode_response(listing, question=question, number=number)
            for listing in self._holdings.listings()
        ]

    def _multicast_answers(self, question: Question) -> list[bytes]:
        if question.name != self._names.list:
            return [
                held.announcement(pointer_from=question.name)
                for held in self._holdings.asked_for(question)
                if held.may_multicast
            ]
        now = time.monotonic()
        if question.kind not in (PTR, ANY) or now - self._listed_at < MULTICAST_SECONDS:
            return []
        self._listed_at = now
        return [packets.encode_response(listing) for listing in self._holdings.listings()]

    def _warn_if_versionless(self, service: str) -> None:
        if service in self._holdings.versionless and service not in self._warned:
            self._warned.add(service)
            _log.warning(
                "a go-micro program asks for %r, which has no version: go-micro's watchers pass "
                "over such services, so it is announced in DNS-SD only; give it a version",
                service,
            )
