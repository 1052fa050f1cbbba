"""Text from a registry, made harmless, and signals, turned into an orderly end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg.cli.errors import one_line
from svcreg.cli.output import clean, format_metadata
from svcreg.cli.signals import interrupting_signals, until_stopped
from tests.unit.cli.support import STOPPING


@given(st.text())
def test_cleaned_text_is_printable_and_loses_nothing(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert clean(cleaned) == cleaned
    if text.isprintable():
        assert cleaned == text
    elif "\\" not in text and text.isascii():
        assert cleaned.encode().decode("unicode_escape") == text


@given(st.text())
def test_message_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()


def test_message_of_several_lines_becomes_one() -> None:
    assert one_line(" a\n\tb\r\nc\x1b[2J ") == r"a b c\x1b[2J"


def test_metadata_is_sorted_by_key() -> None:
    assert format_metadata({"b": "2", "a": "1"}) == "a=1, b=2"
    assert format_metadata({}) == ""


def _handle(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal that is meant for the block."""
    raise AssertionError("the signal went past the block")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Handle the signals, which whoever runs the tests may have had ignored."""
    previous = {each: signal.signal(each, _handle) for each in STOPPING}
    yield
    for each, handler in previous.items():
        signal.signal(each, handler)


@pytest.fixture(params=STOPPING)
def number(request: pytest.FixtureRequest) -> signal.Signals:
    chosen: signal.Signals = request.param
    return chosen


def test_signal_ends_the_block_and_its_handling_is_restored(number: signal.Signals) -> None:
    is_after = False
    with until_stopped():
        signal.raise_signal(number)
        is_after = True
    assert not is_after
    assert {signal.getsignal(each) for each in STOPPING} == {_handle}


def test_block_that_ends_by_itself_restores_the_handling() -> None:
    with pytest.raises(ValueError), until_stopped():
        raise ValueError
    assert {signal.getsignal(each) for each in STOPPING} == {_handle}


def test_signal_that_was_ignored_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with interrupting_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_further_signals_leave_the_clean_up_alone(number: signal.Signals) -> None:
    cleaned_up = False
    with until_stopped():
        try:
            signal.raise_signal(number)
        finally:
            for each in STOPPING:
                signal.raise_signal(each)
            cleaned_up = True
    assert cleaned_up
