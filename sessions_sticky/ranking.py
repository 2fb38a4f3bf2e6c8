"""Rank the providers of a new conversation; performs no I/O."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from numbers import Real

from sessions_sticky import keys


def rendezvous(conversation_id: str, weights: Mapping[str, float | Decimal]) -> list[str]:
    """Rank provider names for a conversation by weighted rendezvous hashing, best first.

    The ranking depends only on the names, the weights and the id, not on the mapping's order, the process, the machine
    or the Python version. Over many ids each name comes first in proportion to its weight; adding or removing a name
    only moves the conversations that it gains or loses. A name with weight 0 is omitted; if there is no other,
    the list is empty, and `first, *others = ...` raises `ValueError`, also for a bound conversation. Raises
    `InvalidConversationId` for an id that is not text or has lone surrogates, `ValueError` if `weights` is not a
    mapping, and for a weight that is negative, too large for a float or not a number.

    Score, part of the contract with other programs: `-weight / ln((h + 0.5) / 2**52)`, where `h` is the first 52 bits
    of SHA-256 over the UTF-8 bytes of the name, a NUL and the conversation id; highest first, equal scores by name.
    Source: Schindelhauer and Schomaker, "Weighted distributed hash tables" (SPAA 2005), logarithmic method.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights must be a mapping of provider names to numbers, not {weights!r}")
    shares = tuple([(name, _share(name, weight)) for name, weight in weights.items()])
    try:
        return list(_order(conversation_id, shares))
    except (TypeError, UnicodeEncodeError):
        keys.check(conversation_id)
        if wrong := [name for name in weights if not isinstance(name, str)]:
            raise ValueError(f"The name of a provider must be a string, not {wrong[0]!r}") from None
        raise


def _share(name: str, weight: object) -> float:
    share = -1.0
    if isinstance(weight, (int, float, Real, Decimal)) and not isinstance(weight, bool):
        try:
            share = float(weight)
        except (OverflowError, ValueError):  # an int beyond 1.8e308, a signalling NaN
            share = math.inf
    if not 0 <= share < math.inf:
        raise ValueError(f"The weight of provider {name!r} must be a finite number of at least 0, not {weight!r}")
    return share


@lru_cache(maxsize=10_000)  # every request of a conversation asks again
def _order(conversation_id: str, shares: tuple[tuple[str, float], ...]) -> list[str]:
    scores = {name: -share / _logarithm(conversation_id, name) for name, share in shares if share > 0}
    return sorted(scores, key=lambda name: (-scores[name], name))


def _logarithm(conversation_id: str, name: str) -> float:
    digest = hashlib.sha256("\0".join((name, conversation_id)).encode()).digest()  # the values of enum members
    # 52 bits and a half fit a double exactly: the quotient is never 0 or 1, and rounding is the same on all platforms.
    h = int.from_bytes(digest[:8], "big") >> 12
    return math.log((h + 0.5) / 2**52)
