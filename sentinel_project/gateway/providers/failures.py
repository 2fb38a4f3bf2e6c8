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


CODES_BY_STATUS = {
    400: frozenset(
        {
            "context_length_exceeded",
            "empty_image_file",
            "failed_to_download_image",
            "image_content_policy_violation",
            "image_file_not_found",
            "image_file_too_large",
            "image_parse_error",
            "image_too_large",
            "image_too_small",
            "invalid_base64_image",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "invalid_prompt",
            "invalid_request_error",
            "unsupported_image_media_type",
        }
    ),
    401: frozenset({"authentication_error", "invalid_api_key"}),
    402: frozenset({"billing_error"}),
    403: REFUSED_KEY - {"authentication_error", "invalid_api_key"},
    404: UNKNOWN_MODEL | {"not_found_error"},
    413: frozenset({"request_too_large"}),
    429: frozenset({"insufficient_quota", "rate_limit_error", "rate_limit_exceeded", "slow_down"}),
    503: frozenset({"server_is_overloaded"}),
    504: frozenset({"timeout_error"}),
    529: frozenset({"overloaded_error"}),
}
"""The statuses of errors that come with status 200, by code. docs/reference/failover.md shows the same table.

From the references of OpenAI (`ResponseError`) and Anthropic. Google's errors have their status as a number.
"""
UNKNOWN_STATUS = 502
"""The status of such an error if nothing in it names one: the provider is at fault."""


def status_of_error(codes: frozenset[str], numbers: frozenset[int], message: str) -> int:
    """Return the status of an error that came with status 200; `numbers` are the statuses that its fields name.

    A fault of the request counts only if nothing names another one: `invalid_request_error` comes with all codes.
    """
    lower = frozenset(code.lower() for code in codes)
    named = numbers | {status for status, known in CODES_BY_STATUS.items() if not lower.isdisjoint(known)}
    others = (status for status in named if classify(status, codes, message).is_failover)
    return min(others, default=min(named, default=UNKNOWN_STATUS))
