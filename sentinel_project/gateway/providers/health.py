"""Cooldowns of providers, models and accounts in this process; `health_sync` shares them.

While something cools down no request is sent there. When that is over one request tries it and the others wait for its
outcome. An answer ends it, a failure doubles the next cooldown. `failures` says what cools down for which failure.

All times are monotonic seconds of this process; `health_sync` converts them for the other processes.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.outliers import Evidence
from sentinel_project.gateway.providers.slots import (
    ACCOUNT,
    CACHE,
    HEALTHY,
    PROVIDER,
    SLOW,
    Failure,
    Recovery,
    SlotState,
    model_slot,
    named,
)

logger = logging.getLogger(__name__)


class Health:
    """The state of every provider, by name and slot.

    `on_change` is called after each change to be shared, `on_recovery` at the first answer after an outage.
    """

    def __init__(
        self,
        cooldown_seconds: float,
        providers: Callable[[], Sequence[Provider]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.states: dict[str, dict[str, SlotState]] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.on_recovery: Callable[[Recovery], None] = lambda recovery: None
        self.now = clock
        self._cooldown_seconds = cooldown_seconds
        self._providers = providers
        self._evidence: dict[str, Evidence] = defaultdict(Evidence)
        self._endings: dict[str, Evidence] = defaultdict(Evidence)

    def is_cooling(self, name: str, model: str) -> bool:
        """Return whether the provider cools down for a model."""
        return name in self.states and self.seconds_left(name, model) > 0

    def seconds_left(self, name: str, model: str | None = None) -> float:
        """Return how long a provider cools down, for one model or (None) for all; 0 when it does not."""
        if name not in self.states:
            return 0.0
        until = [state.cooling_until for _, state in self._slots(name, model)]
        return max(0.0, max(until, default=0.0) - self.now())

    def has_stated_time(self, name: str, model: str) -> bool:
        """Return whether a provider cools down for a model until a time that it stated."""
        return any(state.is_stated and state.cooling_until > self.now() for _, state in self._slots(name, model))

    def is_lost(self, name: str) -> bool:
        """Return whether the provider is lost, so that its conversations should move."""
        return self._state(name, PROVIDER).is_lost

    def failing(self) -> list[str]:
        """Return the names of the providers that are not healthy."""
        return [name for name, slots in self.states.items() if any(state.failures for state in slots.values())]

    def unanswered_since(self, name: str) -> float | None:
        """Return since when a provider, or one of its models, has failed without an answer; None when it has not."""
        since = [each.unanswered_since for each in self.states.get(name, {}).values() if each.failures]
        return min((each for each in since if each is not None), default=None)

    def last_error(self, name: str) -> str:
        """Return the last error of a provider that is not healthy, else an empty text."""
        failed = [state for state in self.states.get(name, {}).values() if state.failures]
        return max(failed, key=lambda state: state.failed_at).error if failed else ""

    def begin(self, name: str, model: str) -> float:
        """Record the start of a request, which after a cooldown is the trial, and return the time.

        Not shared: other processes run their own trials, and one may already have succeeded.
        """
        now = self.now()
        for slot, state in self._slots(name, model):
            if state.failures and state.cooling_until <= now:
                self.states[name][slot] = state.on_trial(now, self._cooldown_seconds)
        return now

    def answered(self, name: str, model: str, begun: float) -> None:
        """Record an answer to a request started at `begun`: it ends cooldowns that began earlier."""
        self._evidence[name].record_answer(self.now())
        healed = [(name, slot) for slot, state in self._slots(name, model) if state.failures]
        if any(slot == ACCOUNT for _, slot in healed):
            healed += [(each, ACCOUNT) for each in self._of_account(name) if each != name]
        for each, slot in healed:
            if begun >= (state := self._state(each, slot)).cooled_at:
                since, error = self.unanswered_since(each), self.last_error(each)
                self._set(each, slot, HEALTHY)
                if since is not None and self.unanswered_since(each) is None:
                    self.on_recovery(Recovery(each, since, self.now(), error))
                if self._is_logged(each):
                    seconds = self.now() - state.cooled_at
                    logger.info("%s answers again, %.0f s after its last cooldown began", named(each, slot), seconds)

    def end_cooldowns(self, name: str) -> None:
        """Let the next request test whether a provider has recovered."""
        for slot, state in list(self.states.get(name, {}).items()):
            if state.failures:
                self._set(name, slot, msgspec.structs.replace(state, cooling_until=self.now(), is_stated=False))

    def completed(self, name: str) -> None:
        """Record that a stream has ended as it should."""
        self._endings[name].record_answer(self.now())

    def failed(self, name: str, model: str, failure: Failure, *, has_content: bool = False) -> None:
        """Start the cooldown of the failure's class. `has_content`: it broke an answer that had begun.

        The outlier rule applies to the beginnings of answers and to their ends separately: a provider that breaks all
        of its streams off has begun them without a failure.
        """
        if failure.cools is Cools.ACCOUNT:
            for each in self._of_account(name):
                self._cool(each, ACCOUNT, failure)
        elif failure.cools is Cools.OUTLIER and failure.retry_after is None:
            self._record_outlier(name, model, failure, has_content=has_content)
        elif failure.cools is not Cools.NOTHING:
            self._cool(name, PROVIDER if failure.cools is Cools.PROVIDER else model_slot(model), failure)

    def forget(self, name: str) -> None:
        """Forget everything known about a provider: its URL or key has changed."""
        for known in (self.states, self._evidence, self._endings):
            known.pop(name, None)

    def record_pace(self, name: str, *, is_slow: bool) -> None:
        """Record whether a provider is slow; for other processes only when it changes."""
        if self.is_slow(name) != is_slow:
            self._set(name, SLOW, SlotState(cooled_at=self.now(), is_stated=is_slow))

    def is_slow(self, name: str) -> bool:
        """Return whether a provider was slow when a stream of some process began last."""
        return self._state(name, SLOW).is_stated

    def record_cold(self, name: str) -> None:
        """Record that a conversation found a provider's prompt caches cold; the second in a row proves it.

        Shared with all workers: the two conversations may be served by different ones.
        """
        self._set(name, CACHE, self._state(name, CACHE).found_cold(self.now()))

    def record_warm(self, name: str) -> None:
        """Record that a conversation found a provider's prompt caches warm."""
        if self._state(name, CACHE).is_cold_once:
            self._set(name, CACHE, HEALTHY)

    def cold_for(self, name: str) -> float | None:
        """Return for how many seconds a provider has been known to have lost its prompt caches; None when it is not."""
        state = self._state(name, CACHE)
        return self.now() - state.cooled_at if state.is_stated else None

    def record_probe(self, name: str, *, is_alive: bool) -> None:
        """Record whether a provider that is cooling down has answered a probe; the cooldown stays.

        Not shared: other processes probe too, and may know of a newer cooldown than this one.
        """
        state = self._state(name, PROVIDER)
        if state.failures:
            self.states[name][PROVIDER] = state.probed(self.now(), is_alive=is_alive)

    def merge(self, name: str, slot: str, state: SlotState) -> None:
        """Merge the state of another process if it is newer.

        If each process has a conversation that found the prompt caches cold, the two prove it.
        """
        mine = self._state(name, slot)
        if state.id != mine.id and (not mine.id or state.at > mine.at):
            self.states.setdefault(name, {})[slot] = state
            if slot == CACHE and mine.is_cold_once and state.is_cold_once:
                self._set(name, slot, msgspec.structs.replace(state, is_stated=True))

    def _record_outlier(self, name: str, model: str, failure: Failure, *, has_content: bool) -> None:
        evidence = self._endings if has_content else self._evidence
        is_outlier = evidence[name].record_failure(self.now(), failure.conversation)
        on_trial = [slot for slot, state in self._slots(name, model) if state.failures and slot != ACCOUNT]
        if on_trial and not has_content and self._may_cool(name, model):
            for slot in on_trial:
                self._cool(name, slot, failure)
        elif is_outlier:
            models = next((each.models for each in self._providers() if each.name == name), ())
            cooled = [model_slot(each) for each in models if self._may_cool(name, each)]
            for slot in cooled if len(cooled) < len(models) else [PROVIDER]:
                self._cool(name, slot, failure)

    def _may_cool(self, name: str, model: str) -> bool:
        """Return whether at most half of a model's providers cool down when this one does, by each of its APIs."""
        serving = [each for each in self._providers() if model in each.models]
        own = next((each.apis for each in serving if each.name == name), ())  # it may be gone from the file by now
        for api in own:
            names = [each.name for each in serving if api in each.apis]
            cooling = sum(each == name or self.is_cooling(each, model) for each in names)
            if 2 * cooling > len(names):
                return False
        return True

    def _cool(self, name: str, slot: str, failure: Failure) -> None:
        now, state = self.now(), self._state(name, slot)
        cooled = state.cooled(slot, failure, now, self._cooldown_seconds)
        self._set(name, slot, cooled)
        seconds = cooled.cooling_until - now
        if cooled.failures > state.failures and seconds > 0 and self._is_logged(name):
            what = named(name, slot)
            logger.warning("%s cools down for %.0f s: %s; concerns %s", what, seconds, cooled.error, failure.cools)

    def _is_logged(self, name: str) -> bool:
        """Return whether a provider is configured; not in a `Health` for requests whose failures do not count."""
        return any(each.name == name for each in self._providers())

    def _of_account(self, name: str) -> list[str]:
        accounts = {each.name: each.account or each.name for each in self._providers()}
        return [each for each, account in accounts.items() if account == accounts.get(name)] or [name]

    def _slots(self, name: str, model: str | None) -> list[tuple[str, SlotState]]:
        """Return the slots that hold a state and concern a model; without a model those that concern every model."""
        slots = self.states.get(name)
        if not slots:
            return []
        concerned = (PROVIDER, ACCOUNT) if model is None else (PROVIDER, ACCOUNT, model_slot(model))
        return [(slot, slots[slot]) for slot in concerned if slot in slots]

    def _state(self, name: str, slot: str) -> SlotState:
        return self.states.get(name, {}).get(slot, HEALTHY)

    def _set(self, name: str, slot: str, state: SlotState) -> None:
        new = msgspec.structs.replace(state, id=uuid.uuid4().hex[:12], at=self.now())
        self.states.setdefault(name, {})[slot] = new
        self.on_change()
