"""Log lines never make their writer wait."""

from __future__ import annotations

import io
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sentinel_project.gateway import metrics
from sentinel_project.log_handler import LineHandler

LINES = 3_000
"""Of more than 100 bytes: several times what a pipe or a socket holds."""


def dropped() -> float:
    return metrics.log_lines_dropped._value.get()


@pytest.fixture
def logger() -> Iterator[Callable[[Any], logging.Logger]]:
    """Make the logger of a stream."""
    with ExitStack() as stack:

        def make(stream: Any) -> logging.Logger:
            handler = LineHandler(stream)
            stack.callback(handler.close)
            made = logging.Logger("lines")
            made.addHandler(handler)
            return made

        yield make


def pipe() -> tuple[int, int]:
    return os.pipe()


def pair() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def read_waiting(reader: int) -> bytes:
    """Return what waits to be read."""
    os.set_blocking(reader, False)
    got = b""
    try:
        while piece := os.read(reader, 2**16):
            got += piece
    except BlockingIOError:
        pass
    return got


@pytest.mark.parametrize("ends", [pipe, pair])
def test_lines_are_dropped_and_counted_while_their_reader_stalls(
    ends: Callable[[], tuple[int, int]], logger: Callable[[Any], logging.Logger]
) -> None:
    reader, writer = ends()
    with open(reader, "rb"), open(writer, "w") as stream:
        lines, before = logger(stream), dropped()
        for number in range(LINES):
            lines.info("line %d %s", number, 100 * "x")
        got = read_waiting(reader)
        assert dropped() - before == LINES - got.count(b"\n") > 0
        read_waiting(reader)
        lines.info("again")
        assert read_waiting(reader).splitlines()[-1] == b"again"
        assert os.get_blocking(writer)  # other programs may share it


def test_next_line_begins_a_line_of_its_own_when_one_was_cut(logger: Callable[[Any], logging.Logger]) -> None:
    reader, writer = pipe()
    with open(reader, "rb"), open(writer, "w") as stream:
        lines = logger(stream)
        lines.info("x" * 1_000_000)
        assert set(read_waiting(reader)) == {ord("x")}
        lines.info("whole")
        assert read_waiting(reader) == b"\nwhole\n"


def test_lone_surrogates_are_escaped(logger: Callable[[Any], logging.Logger]) -> None:
    reader, writer = pipe()
    with open(reader, "rb"), open(writer, "w") as stream:
        logger(stream).info("\ud800 é")
        assert read_waiting(reader) == "\\ud800 é\n".encode()


def test_lines_are_written_to_files_and_objects_as_ever(
    logger: Callable[[Any], logging.Logger], tmp_path: Path
) -> None:
    memory = io.StringIO()
    with open(tmp_path / "log", "w") as file:
        for stream in (file, memory):
            logger(stream).info("line")
    assert (tmp_path / "log").read_text() == memory.getvalue() == "line\n"


def test_error_is_reported_when_the_reader_has_gone(
    logger: Callable[[Any], logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = pipe()
    with open(writer, "w") as stream:
        lines = logger(stream)
        os.close(reader)
        lines.info("line")
    assert "BrokenPipeError" in capsys.readouterr().err


def test_late_lines_are_written_when_the_handler_is_closed(logger: Callable[[Any], logging.Logger]) -> None:
    reader, writer = pipe()
    with open(reader, "rb"), open(writer, "w") as stream:
        lines = logger(stream)
        lines.handlers[0].close()
        lines.info("late")
        assert read_waiting(reader) == b"late\n"
