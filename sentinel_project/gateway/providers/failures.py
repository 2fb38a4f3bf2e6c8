"""Classes of provider failures: the party at fault, and what cools down; performs no I/O.

docs/reference/failover.md shows the same table.
"""

from __future__ import annotations

import enum
from fnmatch import fnmatchcase
from typing import NamedTuple


class Fault(enum.StrEnum):
    """The party at fault."""

    REQUEST = "the request"
    MODEL = "the model at this provider"
    ACCOUNT = "the gateway's account"
    PROVIDER = "the provider"


class Cools(enum.StrEnum):
    """What cools down after a failure."""

    NOTHING = "nothing"
    MODEL = "the model at this provider"
    ACCOUNT = "all providers of the account"
    OUTLIER = "the provider, by the outlier rule"
    PROVIDER = "the provider, at once"


class FailureClass(NamedTuple):
    """One row of the table. A failure belongs to the first row whose status and code or words match.

    `statuses`: the first and the last one. `codes` are compared with the error's `code`, `type` and `status` fields,
    `words` with its message, without regard to case and with `*` for any text. Where both are empty the status alone
    decides.
    """

    statuses: tuple[int, int]
    codes: frozenset[str]
    words: tuple[str, ...]
    fault: Fault
    cools: Cools

    def matches(self, status: int, codes: frozenset[str], message: str) -> bool:
        """Return whether a failure belongs to this row, unless an earlier row matches."""
        first, last = self.statuses
        if not first <= status <= last:
            return False
        if not self.codes and not self.words:
            return True
        return not codes.isdisjoint(self.codes) or any(fnmatchcase(message, pattern) for pattern in self.words)

    @property
    def is_failover(self) -> bool:
        """Whether another provider may answer the same request."""
        return self.fault is not Fault.REQUEST


MAX_MESSAGE_LENGTH = 1000
OUT_OF_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"})
OUT_OF_CREDIT_WORDS = ("*credit balance is too low*", "*insufficient credits*", "*insufficient balance*")
REFUSED_KEY = frozenset(
    {
        "account_deactivated",
        "authentication_error",
        "invalid_api_key",
        "permission_denied",
        "permission_error",
        "unsupported_country_region_territory",
    }
)
UNKNOWN_MODEL = frozenset({"deploymentnotfound", "invalid_model", "model_not_found", "unknown_model"})
UNKNOWN_MODEL_WORDS = ("", "not found", "model: *", "*model*not found*", "*model*does not exist*")
"""The first two: an answer without a reason comes from a server that does not know the path."""

_ANY: frozenset[str] = frozenset()

CLASSES = (
    FailureClass((400, 599), OUT_OF_CREDIT, OUT_OF_CREDIT_WORDS, Fault.ACCOUNT, Cools.ACCOUNT),
    FailureClass((401, 402), _ANY, (), Fault.ACCOUNT, Cools.ACCOUNT),
    FailureClass((400, 400), _ANY, ("*api key not valid*",), Fault.ACCOUNT, Cools.ACCOUNT),  # Google's
    FailureClass((403, 403), REFUSED_KEY, ("*api key*",), Fault.ACCOUNT, Cools.ACCOUNT),
    FailureClass((400, 404), UNKNOWN_MODEL, (), Fault.MODEL, Cools.MODEL),
    FailureClass((404, 404), _ANY, UNKNOWN_MODEL_WORDS, Fault.MODEL, Cools.MODEL),
    FailureClass((429, 429), _ANY, ("*request too large*",), Fault.MODEL, Cools.NOTHING),  # OpenAI's: above its limit
    FailureClass((429, 429), _ANY, (), Fault.MODEL, Cools.MODEL),
    FailureClass((408, 409), _ANY, (), Fault.PROVIDER, Cools.OUTLIER),
    FailureClass((425, 425), _ANY, (), Fault.PROVIDER, Cools.OUTLIER),
    FailureClass((400, 499), _ANY, (), Fault.REQUEST, Cools.NOTHING),
    FailureClass((100, 999), _ANY, (), Fault.PROVIDER, Cools.OUTLIER),
)
"""Failures with a status. 5xx and unexpected statuses (1xx, other 2xx, 3xx) belong to the last row."""

UNREACHABLE = FailureClass((0, 0), _ANY, (), Fault.PROVIDER, Cools.PROVIDER)
"""No connection: refused, unknown host, TLS, no answer to the connect within its time."""
BROKEN = FailureClass((0, 0), _ANY, (), Fault.PROVIDER, Cools.OUTLIER)
"""No answer: out of time, reset, broken off, too long, or status 200 without an answer of the API."""


def classify(status: int, codes: frozenset[str] = _ANY, message: str = "") -> FailureClass:
    """Return the class of an error answer. `codes` are the texts of its `code`, `type` and `status` fields."""
    codes, message = frozenset(code.lower() for code in codes), message[:MAX_MESSAGE_LENGTH].strip().lower()
    return next(each for each in CLASSES if each.matches(status, codes, message))


STATUS_BY_TYPE = {
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 529,
    "authentication_error": 401,
    "insufficient_quota": 429,
    "billing_error": 402,
    "timeout_error": 504,
}
GENERAL_TYPES = {
    "invalid_request_error": 400,
    "not_found_error": 404,
    "permission_error": 403,
    "request_too_large": 413,
}
"""Types that say less than those above, for `invalid_request_error` comes with codes of all kinds."""


def status_of_error(codes: frozenset[str], numbers: frozenset[int]) -> int:
    """Return the status that fits an error which came with status 200; 502 when its fields name none."""
    named = {number for number in numbers if number == 429 or 500 <= number <= 599 or number in (401, 402)}
    named |= {STATUS_BY_TYPE[code] for code in codes if code in STATUS_BY_TYPE}
    named = named or {GENERAL_TYPES[code] for code in codes if code in GENERAL_TYPES}
    return min(named, default=502)
