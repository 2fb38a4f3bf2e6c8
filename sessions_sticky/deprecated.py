"""The former name of an argument; the next version removes this module."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

P = ParamSpec("P")
T = TypeVar("T")

FORMER_OWNER = "The argument external_id is deprecated: it is owner now"


def former_owner(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method accept `external_id`, the former name of its argument `owner`."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if "external_id" in kwargs and "owner" not in kwargs:  # both: a TypeError, as for any unknown argument
            warnings.warn(FORMER_OWNER, DeprecationWarning, stacklevel=2)
            kwargs["owner"] = kwargs.pop("external_id")
        return method(*args, **kwargs)

    return markcoroutinefunction(call) if iscoroutinefunction(method) else call
