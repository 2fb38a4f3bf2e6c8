from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import blocks
from tests.docs.reader import Reader
from tests.servers import start_server

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "tutorial.md"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who has followed the tutorial on an empty Valkey."""
    with start_server() as server, Reader(tmp_path_factory.mktemp("tutorial"), server.url) as reader:
        reader.follow(blocks(PAGE))
        yield reader


@pytest.mark.slow
def test_tutorial_prints_what_it_shows_when_followed(reader: Reader) -> None:
    for command, expected, printed in reader.heard:
        if expected or command.startswith("curl"):
            assert printed == expected, command
    assert sum(bool(expected) for _, expected, _ in reader.heard) >= 8


@pytest.mark.slow
def test_tutorial_keeps_conversations_with_another_model_and_after_a_kill(
    reader: Reader,
) -> None:
    chats = [(command, printed) for command, _, printed in reader.heard if '"trip-3"' in command and "ada" in command]
    starts = [at for at, (command, _, _) in enumerate(reader.heard) if command.startswith("uvicorn")]
    after_kill = [command for command, _, _ in reader.heard[starts[1] :]]
    assert len({command.partition('"model": ')[2][:8] for command, _ in chats}) == 2
    assert all("azure gpt-4o heard" in printed for _, printed in chats[:3])
    assert chats[2][0] in after_kill
    assert '"hit"' in chats[2][1]


def test_tutorial_takes_less_than_40_lines() -> None:
    ours = [block for block in blocks(PAGE) if block.language == "python"]
    written = [line for block in ours for line in block.text.splitlines() if line.strip()]
    assert len(ours) >= 4
    assert len(written) < 40


def test_tutorial_works_in_every_terminal() -> None:
    """A variable that is exported in the first one is not there in the second."""
    commands = [command for block in blocks(PAGE) if block.language == "console" for command, _ in block.dialogue()]
    assert not [command for command in commands if command.startswith("export")]


def test_tutorial_is_python_of_its_own_when_read() -> None:
    for block in blocks(PAGE):
        if block.language == "python":
            assert block.path
            ast.parse(block.text)
