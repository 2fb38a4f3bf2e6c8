"""A turn of a conversation: who answered, how, and what it found in the prompt cache; pure."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from sessions_sticky import keys
from sessions_sticky.deprecated import FORMER_OWNER
from sessions_sticky.exceptions import InvalidSession
from sessions_sticky.session import LATEST, plain_text

DEFAULT_CACHE_SECONDS = 300
"""How long most providers keep a prompt cache after its last use."""
FAILED = "failed"
"""The outcome of a failed attempt at a provider."""
UNANSWERED = "unanswered"
"""The outcome of turns that no provider answered."""
REBOUND = "rebound"
"""The outcome of a turn with which the gateway moved the conversation."""
SPILLED = "spilled"
"""The outcome of a turn that another provider answered while the binding was kept."""
MAX_SPILL_OVERS = 5
CACHE_BLOCK, MIN_CACHED_TOKENS = 128, 1_024
"""Tokens: providers that cache automatically keep whole blocks of prompts with a minimum length (OpenAI's values)."""


MILLION = 1_000_000
"""Money is in millionths; prices are for a million tokens."""
MAX_TOKENS = 2**40
Tokens = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
Seconds = Annotated[float, Meta(ge=0, le=LATEST)]
Amount = Annotated[float, Meta(ge=0, le=1_000_000)]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of a turn. `input` counts the whole prompt: uncached, read from a prompt cache and written to it.

    `cached` is what the provider's cache holds after the turn: 0 for a provider without one, None if the other
    numbers determine it (see `warm`).
    """

    input: Tokens
    read: Tokens = 0
    written: Tokens = 0
    output: Tokens = 0
    cached: Tokens | None = None

    @property
    def warm(self) -> int:
        """Tokens of the prompt that the next turn should read from the cache; 0 for prompts too short to be cached."""
        tokens = self.cached
        if tokens is None:
            tokens = self.read + self.written if self.written else self.input // CACHE_BLOCK * CACHE_BLOCK
        return tokens if tokens >= MIN_CACHED_TOKENS else 0


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a million tokens cost, in any currency. None: cached and written tokens cost what other input costs."""

    input: Amount
    output: Amount = 0
    cached_input: Amount | None = None
    cache_write: Amount | None = None

    @property
    def discount(self) -> float:
        """What a million tokens read from the cache save."""
        return 0.0 if self.cached_input is None else self.input - self.cached_input

    def saved(self, usage: Usage) -> int:
        """Return what the cache saved, in millionths of the currency; negative where writing to it cost more."""
        surcharge = 0.0 if self.cache_write is None else self.cache_write - self.input
        return round(usage.read * self.discount - usage.written * surcharge)

    def cost(self, usage: Usage) -> int:
        """Return what a turn costs, in millionths of the currency."""
        return round(usage.input * self.input + usage.output * self.output) - self.saved(usage)


class Attempt(NamedTuple):
    """A provider that was asked and did not answer. `code` is the error's, empty if the status says enough."""

    provider: str
    status: Annotated[int, Meta(ge=0, le=999)]
    code: str = ""


class Turn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One turn as `record_turn` takes it.

    `conversation_id` None: counted, but in no trail. `at` is when the request came and `ended_at` when its answer ended
    (None: the same), in Unix seconds. `provider` is the one that answered, `bound_provider` the one that the
    conversation was bound to when the request came. `outcome`, `source` and `reason` (of a spill or a rebind) are set
    by the gateway. `usage` None: unknown. A turn with a `status` of 400 or more has no answer. `cache_seconds` is how
    long the provider keeps a prompt cache after its last use. `price` None: no money is counted.
    """

    conversation_id: str | None
    at: Seconds
    provider: str
    model: str
    outcome: str
    owner: str = ""
    bound_provider: str = ""
    source: str = ""
    reason: str = ""
    status: Annotated[int, Meta(ge=0, le=999)] = 200
    attempts: tuple[Attempt, ...] = ()
    first_byte_ms: Tokens | None = None
    usage: Usage | None = None
    ended_at: Seconds | None = None
    cache_seconds: Seconds = DEFAULT_CACHE_SECONDS
    price: Price | None = None
    external_id: str = ""
    """Former name of `owner`; the next version removes it."""

    def __post_init__(self) -> None:
        if self.external_id and not self.owner:
            warnings.warn(FORMER_OWNER, DeprecationWarning, stacklevel=2)
            msgspec.structs.force_setattr(self, "owner", self.external_id)

    @property
    def saved(self) -> int:
        """What the prompt cache saved, in millionths of the price's currency."""
        return self.price.saved(self.usage) if self.price and self.usage else 0

    @property
    def sums(self) -> tuple[int, ...]:
        """What the turn adds to `TurnTotals`, except the last three fields, which only the trail can compute."""
        usage = self.usage
        tokens = (0,) * 4 if usage is None else (usage.input, usage.read, usage.written, usage.output)
        return (1, int(usage is None), *tokens, self.saved)

    @property
    def cache_expires_at(self) -> int | None:
        """When the provider's prompt cache of the conversation expires; None for a turn without an answer."""
        return None if self.status >= 400 else int((self.ended_at or self.at) + self.cache_seconds)


class RecordedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as `trail` returns it.

    `expected` are the tokens that the conversation's last turn at this provider had left in its cache. `lost` is the
    cost of a move: the tokens that the last turn, at another provider, had left in the cache there and this one did not
    read. `saved` is money in millionths, as the turn's price said.
    """

    at: datetime
    provider: str
    model: str
    outcome: str
    bound_provider: str
    source: str
    reason: str
    status: int
    attempts: tuple[Attempt, ...]
    first_byte_ms: int | None
    usage: Usage | None
    expected: int
    lost: int
    saved: int


class TurnTotals(msgspec.Struct, frozen=True):
    """Sums over turns. `unknown` counts those without usage. Money (`saved`, `lost_money`) is in millionths."""

    turns: int = 0
    unknown: int = 0
    input: int = 0
    read: int = 0
    written: int = 0
    output: int = 0
    saved: int = 0
    expected: int = 0
    lost: int = 0
    lost_money: int = 0

    @property
    def cached_share(self) -> float | None:
        """The share of the input that was read from prompt caches; None without input."""
        return self.read / self.input if self.input else None


class PromptCache(NamedTuple):
    """What a provider's prompt cache should hold of a conversation, until a time in Unix seconds."""

    expires_at: int
    tokens: int


class SpillOver(NamedTuple):
    """Turns in a row that another provider answered; `reason` is that of the first one."""

    provider: str
    bound_provider: str
    first_at: datetime
    last_at: datetime
    turns: int
    reason: str


class Trail(msgspec.Struct, frozen=True):
    """The last turns of a session, oldest first, its totals and its prompt caches by provider.

    `last_provider` gave the last answer; None before the first one. `spill_overs` are the last `MAX_SPILL_OVERS`,
    oldest first, also of turns that the trail no longer keeps.
    """

    turns: list[RecordedTurn] = []
    totals: TurnTotals = TurnTotals()
    caches: dict[str, PromptCache] = {}
    last_provider: str | None = None
    spill_overs: list[SpillOver] = []


def check_turn(turn: Turn) -> Turn:
    """Return a turn with its parts as records: usage and attempts may be dicts and tuples, as from JSON.

    Prices may be `Decimal`, as from a database.
    Raises `InvalidSession` if it cannot be stored, and `InvalidConversationId` for an invalid id.
    """
    try:
        checked = _DECODER.decode(_ENCODER.encode(turn))
    except (msgspec.MsgspecError, TypeError, UnicodeError) as exc:
        raise InvalidSession(f"Invalid turn: {exc}") from exc
    if turn.conversation_id is not None:
        keys.check(turn.conversation_id)
    return checked


_ENCODER = msgspec.json.Encoder(enc_hook=plain_text, decimal_format="number")
_DECODER = msgspec.json.Decoder(Turn)
