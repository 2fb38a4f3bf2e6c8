"""Deprecated names of 0.1: they warn, and the next version removes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from sessions_sticky.queries.filters import Page
from sessions_sticky.queries.manager_methods import ManagerMethods
from sessions_sticky.queries.query import SessionQuery, in_thread
from sessions_sticky.session import FORMER_OWNER, Entry

P = ParamSpec("P")
T = TypeVar("T")


def former_owner(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method accept `external_id`, the name of its argument `owner` in 0.1."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if "external_id" in kwargs and "owner" not in kwargs:  # both: a TypeError, as for any unknown argument
            warnings.warn(FORMER_OWNER, DeprecationWarning, stacklevel=2)
            kwargs["owner"] = kwargs.pop("external_id")
        return method(*args, **kwargs)

    return markcoroutinefunction(call) if iscoroutinefunction(method) else call


class FormerMethods(ManagerMethods):
    """Methods of `SessionManager` that are filters now."""

    def page(self, *, cursor: str | None = None, limit: int = 50, **filters: Any) -> Page:
        """Do what `filter(...).page()` does. Deprecated."""
        return self._former("page", filters).page(cursor=cursor, limit=limit)

    apage = in_thread(page)

    def scan(self, **filters: Any) -> Iterator[Entry]:
        """Do what iterating over `filter(...)` does. Deprecated."""
        return iter(self._former("scan", filters))

    def count(self, **filters: Any) -> int:
        """Do what `filter(...).count()` does. Deprecated."""
        return self._former("count", filters).count()

    acount = in_thread(count)

    def delete_all(self, *, everything: bool = False, progress: Any = None, **filters: Any) -> int:
        """Do what `filter(...).delete()` does. Deprecated."""
        return self._former("delete_all", filters, everything=everything).delete(progress=progress)

    adelete_all = in_thread(delete_all)

    def rebind_all(
        self,
        *,
        to_provider: str,
        reason: str,
        to_model: str | None = None,
        everything: bool = False,
        progress: Any = None,
        **filters: Any,
    ) -> int:
        """Do what `filter(...).rebind()` does. Deprecated."""
        query = self._former("rebind_all", filters, everything=everything)
        return query.rebind(to_provider=to_provider, to_model=to_model, reason=reason, progress=progress)

    arebind_all = in_thread(rebind_all)

    def _former(self, name: str, filters: dict[str, Any], *, everything: bool | None = None) -> SessionQuery:
        message = f"SessionManager.{name} is deprecated: use all() or filter(...), whose owner was external_id"
        warnings.warn(message, DeprecationWarning, stacklevel=3)
        fields = {"owner" if field == "external_id" else field: value for field, value in filters.items()}
        query = self.all().filter(**fields)
        if everything is not None and everything != query.is_everything:
            raise ValueError("Either a filter (provider, model, owner) or everything=True is needed, not both")
        return query
