"""The last turns of a session in Redis: a list of a header and the turns, oldest first; see trail.lua.

Numbers of a turn are in base 36 and names are numbers of the header's lines: a turn takes at most `MAX_TURN_BYTES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache

from sessions_sticky import keys
from sessions_sticky.connections.commands import Command, Script, ScriptCall
from sessions_sticky.turns import Attempt, PromptCache, RecordedTurn, SpillOver, Trail, Turn, TurnTotals, Usage

MAX_TURN_BYTES = 80
MAX_NAME_LENGTH = 256
"""Maximum length of a name in a trail, in characters."""
MAX_NUMBER = 36**5 - 1
"""60 million tokens, or milliseconds; larger numbers are capped."""
NAME_BYTES, ADDED_BYTES = 2, 12
"""The most that a name's number takes, and that the script adds behind a turn."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

RECORD = Script("trail")

Recorded = tuple[int, int] | None
"""The tokens expected from the cache and those lost by a move; None without a session."""


def record_command(turn: Turn, conversation_id: str, ttl: int, length: int) -> ScriptCall[Recorded]:
    """Add a turn to a session's trail, if the session exists; see trail.lua."""
    names = turn.provider, turn.bound_provider, turn.model, turn.outcome, turn.source, turn.reason
    references, name_lines = _references(names)
    fields, added = _encode(turn, references)
    usage, expires_at = turn.usage, turn.cache_expires_at
    tokens = "\n" if usage is None else f"{usage.read}\n{usage.warm}"
    discount = turn.price.discount if turn.price else 0
    sums = " ".join(map(str, turn.sums))
    expiry = "" if expires_at is None else expires_at
    text = f"{length}\n{int(turn.at)}\n{expiry}\n{tokens}\n{discount}\n{sums}\n{fields}\n{name_lines}"
    return RECORD.call(
        [keys.trail(conversation_id), keys.session(conversation_id)],
        ttl * 1000,
        "\n".join([text, *map(_name, added)]),
    )


def read_command(conversation_id: str) -> Command[list[bytes]]:
    """Read a session's trail."""
    return Command(("LRANGE", keys.trail(conversation_id), 0, -1))


def read_header_command(conversation_id: str) -> Command[list[bytes]]:
    """Read the totals and prompt caches of a session's trail, without the turns."""
    return Command(("LRANGE", keys.trail(conversation_id), 0, 0))


def read_trail(elements: Sequence[bytes]) -> Trail:
    """Decode a trail; omit damaged parts."""
    header, *texts = [element.decode(errors="replace") for element in elements] or [""]
    sums, caches, *names = [*header.split("\n"), ""]
    if header.count("\n") > 0:
        names.pop()
    turns = [turn for turn in (_read_turn(text, names) for text in texts) if turn is not None]
    found = _read_caches(caches, names)
    return Trail(turns, _read_totals(sums), found, next(iter(found), None), list(_read_spill_overs(caches, names)))


def _encode(turn: Turn, references: Sequence[str]) -> tuple[str, list[str]]:
    """Return a turn with the references to its names, and the names of its attempts, to which it refers as the next."""
    usage = turn.usage
    tokens = ("",) * 4 if usage is None else map(_base36, (usage.input, usage.read, usage.written, usage.output))
    fields = [
        *(_base36(int(turn.at), 36**6), _base36(turn.status)),
        "" if turn.first_byte_ms is None else _base36(turn.first_byte_ms),
        *references,
        *tokens,
        _base36(turn.saved),
    ]
    if not turn.attempts:
        return " ".join([*fields, ""]), []
    room = MAX_TURN_BYTES - ADDED_BYTES - len(fields) - sum(map(_most_bytes, fields))
    attempts: list[str] = []
    added: list[str] = []
    for attempt in reversed(turn.attempts):  # the last ones, as many as there is room for
        number = len(references) + len(added)
        text = f"${number + 1}.{_base36(attempt.status)}.${number + 2}"
        room -= _most_bytes(text) + 1
        if room < 0:
            break
        attempts.insert(0, text)
        added += [attempt.provider, attempt.code]
    return " ".join([*fields, ",".join(attempts)]), added


@lru_cache(maxsize=1024)
def _references(names: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the references to names, `$1` for the first, and the names as lines of a header."""
    return [f"${at}" if name else "" for at, name in enumerate(names, 1)], "\n".join(map(_name, names))


def _most_bytes(field: str) -> int:
    return len(_NAME.sub("x" * NAME_BYTES, field))


@lru_cache(maxsize=4096)  # times, statuses and most counts of a batch are the same, or small
def _base36(number: int, limit: int = MAX_NUMBER) -> str:
    left, text = min(abs(number), limit), ""
    while left or not text:
        left, digit = divmod(left, 36)
        text = _DIGITS[digit] + text
    return f"-{text}" if number < 0 else text


@lru_cache(maxsize=1024)
def _name(name: str) -> str:
    """Return a name as one line of a header."""
    return _CONTROL.sub("?", name)[:MAX_NAME_LENGTH].encode(errors="replace").decode()


def _read_turn(text: str, names: list[str]) -> RecordedTurn | None:
    def name(number: str) -> str:
        return _named(number, names)

    try:
        at, status, first_byte, *numbers, attempts, expected, lost = text.split(" ")
        provider, bound, model, outcome, source, reason, *tokens, saved = numbers
        return RecordedTurn(
            at=datetime.fromtimestamp(int(at, 36), UTC),
            provider=name(provider),
            model=name(model),
            outcome=name(outcome),
            bound_provider=name(bound),
            source=name(source),
            reason=name(reason),
            status=int(status, 36),
            attempts=tuple(
                Attempt(name(who), int(answer, 36), name(code))
                for who, answer, code in (each.split(".") for each in attempts.split(",") if each)
            ),
            first_byte_ms=int(first_byte, 36) if first_byte else None,
            usage=Usage(*(int(number, 36) for number in tokens)) if all(tokens) else None,
            expected=int(expected, 36),
            lost=int(lost, 36),
            saved=int(saved, 36),
        )
    except (ValueError, TypeError, OverflowError):
        return None


def _read_totals(text: str) -> TurnTotals:
    numbers = [int(number) for number in text.split() if _NUMBER.fullmatch(number)]
    return TurnTotals(*numbers[: len(TurnTotals.__struct_fields__)])


def _read_caches(text: str, names: list[str]) -> dict[str, PromptCache]:
    found = [match.groups() for match in _CACHE.finditer(text)]
    return {
        names[int(number, 36)]: PromptCache(int(expires_at), int(tokens))
        for number, expires_at, tokens in found
        if int(number, 36) < len(names)
    }


def _read_spill_overs(text: str, names: list[str]) -> Iterator[SpillOver]:
    for provider, bound, first, last, turns, reason in _SPILL_OVER.findall(text):
        with suppress(ValueError, OverflowError):  # a time that no calendar has
            first_at, last_at = (datetime.fromtimestamp(int(at), UTC) for at in (first, last))
            who, instead_of, why = (_named(each, names) for each in (provider, bound, reason))
            yield SpillOver(who, instead_of, first_at, last_at, int(turns), why)


def _named(number: str, names: list[str]) -> str:
    """Return the name with a number in base 36; empty for none."""
    at = int(number, 36) if number else len(names)
    return names[at] if at < len(names) else ""


_NAME = re.compile(r"\$\d+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_CACHE = re.compile(r"([0-9a-z]{1,4}):([0-9]{1,18}):([0-9]{1,18})(?= |$)")
_SPILL_OVER = re.compile(
    r"([0-9a-z]{0,4})-([0-9a-z]{0,4})-([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,18})-([0-9a-z]{0,4})(?= |$)"
)
