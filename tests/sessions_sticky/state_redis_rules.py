"""What may happen on Redis besides: the index and the history, operators, more faults."""

from __future__ import annotations

from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from sessions_sticky import SessionStoreUnavailable
from tests.sessions_sticky.indexed import lose_index, walk
from tests.sessions_sticky.state_model import TTL_SECONDS
from tests.sessions_sticky.state_rules import CONVERSATIONS, FILTERS, IDS, MODELS, NATIVE, PROVIDERS, WHO, Machine


class RedisMachine(Machine):
    """What holds on Redis besides: the index and the history."""

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS)
    def inspect(self, who, native, conversation_id):
        session = self.model.session(conversation_id)
        entry = self.world.ask(who, native, "inspect", conversation_id)
        if self.model.down:
            assert type(entry) is SessionStoreUnavailable
        elif session is None:
            assert entry is None
        else:
            left = self.model.left(conversation_id)
            assert entry.session == session
            assert entry.expires_in is None if left == inf else 0 < entry.expires_in <= TTL_SECONDS

    def page(self, who, native, filters, limit):
        if self.model.down:
            self.ask(None, who, native, "page", **filters)
            return
        shown = walk(lambda **kwargs: self.world.ask(who, native, "page", **kwargs), limit=limit, **filters)
        meant = self.model.matching(filters)
        found = {session.id: session for session in shown}
        if self.model.drifted:  # a session may have two entries, and be on two pages
            assert found.items() <= meant.items()
        else:
            assert found == meant
            assert len(found) == len(shown)

    def scan(self, who, filters):
        answer = self.world.ask(who, False, "scan", **filters)
        if self.model.down:
            assert type(answer) is SessionStoreUnavailable
            return
        meant = self.model.matching(filters)
        found = {entry.session.id: entry.session for entry in answer}
        assert len(found) == len(answer)
        assert found.items() <= meant.items() if self.model.drifted else found == meant

    def search(self, who, native, conversation_id):
        page = self.world.ask(who, native, "search", text=conversation_id)
        if self.model.down:
            assert type(page) is SessionStoreUnavailable
            return
        session = self.model.session(conversation_id)
        assert [entry.session for entry in page.entries] == ([] if session is None else [session])

    def count(self, who, native, filters):
        number = len(self.model.matching(filters))
        answer = self.world.ask(who, native, "count", **filters)
        if self.model.down:
            assert type(answer) is SessionStoreUnavailable
        elif self.model.drifted:
            assert 0 <= answer <= len(IDS)
        else:
            assert answer == number

    def stats(self, who, native):
        stats = self.world.ask(who, native, "stats")
        hours = self.world.ask(who, native, "created_per_hour")
        if self.model.down:
            assert type(stats) is type(hours) is SessionStoreUnavailable
        elif not self.model.drifted:
            bound = [(session.provider, session.model) for session in self.model.sessions.values()]
            counted = {(row.provider, row.model): row.sessions for row in stats.routes if row.sessions}
            assert counted == {route: bound.count(route) for route in bound}
            assert stats.sessions == len(bound)
            assert len(hours) == 24

    def history(self, who, native, conversation_id):
        events = self.world.ask(who, native, "history", conversation_id)
        recent = self.world.ask(who, native, "recent", limit=1_000)
        if self.model.down:
            assert type(events) is type(recent) is SessionStoreUnavailable
            return
        assert [event.conversation_id for event in recent] == self.model.recent
        assert self.model.session(conversation_id) is None or "created" in [event.kind for event in events]
        changes = [(event.kind, event.provider, event.model) for event in events if event.kind != "created"]
        if (expected := self.model.histories.get(conversation_id)) is None:
            assert changes == []
            return
        assert changes == expected.events[len(expected.events) - len(changes) :]
        assert len(changes) >= len(expected.events) - expected.sure(self.model.now)

    @rule(who=WHO, native=NATIVE, provider=PROVIDERS, model=MODELS, limit=st.integers(1, 3), repaired=st.booleans())
    def look_at_everything(self, who, native, provider, model, limit, repaired):
        if repaired:
            self.make_index_true()
        for filters in ({}, {"provider": provider}, {"provider": provider, "model": model}, {"external_id": "a"}):
            self.page(who, native, filters, limit)
            self.count(who, native, filters)
            self.scan(who, filters)
        self.stats(who, native)
        for conversation_id in IDS:
            self.history(who, native, conversation_id)
            self.search(who, native, conversation_id)

    @rule(who=WHO, native=NATIVE)
    def reindex(self, who, native):
        self.ask(len(self.model.sessions), who, native, "reindex")
        self.model.drifted = self.model.drifted and self.model.down

    @rule(who=WHO, native=NATIVE, filters=FILTERS)
    def delete_all(self, who, native, filters):
        self.make_index_true()
        self.ask(lambda: self.model.delete_all(who, filters), who, native, "delete_all", **filters)

    @rule(who=WHO, native=NATIVE, filters=FILTERS, provider=PROVIDERS, model=st.none() | MODELS)
    def rebind_all(self, who, native, filters, provider, model):
        self.make_index_true()
        target = {"to_provider": provider, "to_model": model, "reason": "r"}
        expected = lambda: self.model.rebind_all(who, filters, provider, model)  # noqa: E731
        self.ask(expected, who, native, "rebind_all", **target, **filters)

    def make_index_true(self):
        if self.model.drifted and not self.model.down:
            self.reindex(0, False)

    @rule()
    def lose_index(self):
        lose_index(self.world.raw)
        self.model.drifted = True

    @precondition(lambda self: self.world.can_fail and not self.model.down)
    @rule()
    def cut_connections(self):
        self.world.proxy.cut_all()

    @precondition(lambda self: self.world.can_fail)
    @rule()
    def forget_scripts(self):
        self.world.raw.script_flush()
