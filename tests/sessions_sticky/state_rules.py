"""What may happen to any store, each with what the model expects of it: the rules of test_state_machine.py."""

from __future__ import annotations

import time
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sessions_sticky import Resolution, Session, SessionConflict, SessionNotSupported, SessionStoreUnavailable, keys
from tests.sessions_sticky.state_model import Held, Model, alike, moved
from tests.sessions_sticky.state_world import Portable, Redis

IDS = ("c0", "c1")
WHO = st.integers(0, 1)
NATIVE = st.booleans()
CONVERSATIONS = st.sampled_from(IDS)
PROVIDERS, MODELS, OWNERS = st.sampled_from("pq"), st.sampled_from("mn"), st.sampled_from("aaab")
FILTERS = st.fixed_dictionaries({}, optional={"provider": PROVIDERS, "model": MODELS, "external_id": OWNERS})
SECONDS = st.sampled_from([35, 35, 60, 1_000])
"""No sum of them is an idle time, or nearly: real time passes as well."""

MAX_STEPS_DOWN = 3


class Machine(RuleBasedStateMachine):
    """What holds for every cache."""

    world: Portable | Redis

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(restores=not isinstance(self.world, Portable))
        self.world.begin()
        self.older: list[Session] = []
        self.steps_down = 0

    def ask(self, expected, who, native, method, *args, **kwargs):
        """Assert that a method answers as expected, or raises that the store is unavailable."""
        answer = self.world.ask(who, native, method, *args, **kwargs)
        expected = SessionStoreUnavailable if self.model.down else expected() if callable(expected) else expected
        assert alike(answer, expected), (method, args, kwargs, answer, expected)
        return answer

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS)
    def get(self, who, native, conversation_id):
        self.ask(self.model.session(conversation_id), who, native, "get", conversation_id)

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS)
    def touch(self, who, native, conversation_id):
        self.ask(lambda: self.model.touch(conversation_id), who, native, "touch", conversation_id)

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS)
    def delete(self, who, native, conversation_id):
        self.ask(lambda: self.model.delete(who, conversation_id), who, native, "delete", conversation_id)

    @rule(
        who=WHO,
        native=NATIVE,
        conversation_id=CONVERSATIONS,
        provider=PROVIDERS,
        model=MODELS,
        owner=OWNERS,
        replace=st.booleans(),
    )
    def create(self, who, native, conversation_id, provider, model, owner, replace):
        answer = self.world.ask(who, native, "create", conversation_id, provider, model, owner, replace=replace)
        if self.model.down:
            assert type(answer) is SessionStoreUnavailable
            return
        bound = self.model.session(conversation_id)
        if bound and not replace:
            assert alike(answer, SessionConflict(conversation_id, bound)), answer
            return
        self.check_new(answer, conversation_id, provider, model, owner)
        self.model.create(who, answer)

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS, provider=PROVIDERS, model=MODELS, owner=OWNERS)
    def resolve(self, who, native, conversation_id, provider, model, owner):
        proposal = Session(conversation_id, provider, model, owner, 0)
        given = self.model.expect(who, proposal)
        proposed = {"provider": provider, "model": model, "owner": owner}
        answer = self.world.ask(who, native, "resolve", conversation_id, **proposed)
        if given is proposal:
            assert isinstance(answer, Resolution), answer
            self.check_new(answer.session, conversation_id, provider, model, owner)
            given = answer.session
        expected = self.model.resolve(who, given, owner)
        assert alike(answer, expected), (answer, expected)

    @rule(native=NATIVE, provider=PROVIDERS, model=MODELS)
    def resolve_everything(self, native, provider, model):
        """Random choice alone would rarely resolve every id in both processes, which shows what each remembers."""
        for conversation_id in IDS:
            for who in (0, 1):
                self.resolve(who, native, conversation_id, provider, model, "a")

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS, provider=PROVIDERS, model=MODELS, data=st.data())
    def rebind(self, who, native, conversation_id, provider, model, data):
        known = [session for session in self.older if session.id == conversation_id]
        if bound := self.model.session(conversation_id):
            known.append(bound)
        if not known:
            return
        before = known[-1] if data.draw(st.integers(0, 2)) else known[0]
        expected = lambda: self.model.rebind(who, before, moved(before, provider, model))  # noqa: E731
        move = {"provider": provider, "model": model, "reason": "r"}
        if isinstance(self.world, Portable):
            assert type(self.world.ask(who, native, "rebind", before, **move)) is SessionNotSupported
        else:
            self.ask(expected, who, native, "rebind", before, **move)

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS)
    def get_raw(self, who, native, conversation_id):
        answer = self.world.ask(who, native, "get_raw", conversation_id)
        if self.model.down:
            assert type(answer) is SessionStoreUnavailable
        else:
            assert answer == self.world.read(conversation_id)

    @rule(who=WHO, native=NATIVE, conversation_id=CONVERSATIONS, data=st.data())
    def delete_unchanged(self, who, native, conversation_id, data):
        known = [session for session in self.older if session.id == conversation_id]
        if bound := self.model.session(conversation_id):
            known.append(bound)
        if known:
            before = known[-1] if data.draw(st.integers(0, 2)) else known[0]
            expected = lambda: self.model.delete_unchanged(who, before)  # noqa: E731
            self.ask(expected, who, native, "delete_unchanged", before)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds):
        self.model.now += seconds
        left = {keys.session(each): self.model.left(each) for each in self.model.held}
        left |= {keys.deleted(each): until - self.model.now for each, (until, _) in self.model.deleted.items()}
        self.world.pass_time(seconds, left)
        self.model.pass_time(0)

    @precondition(lambda self: self.world.can_fail and not self.model.down)
    @rule()
    def go_down(self):
        self.world.go_down()
        self.model.down, self.steps_down = True, 0

    @precondition(lambda self: self.model.down)
    @rule()
    def come_up(self):
        self.world.come_up()
        self.model.down = False

    @rule()
    def lose_everything(self):
        self.world.lose_everything()
        self.model.lose_everything()

    @rule(
        conversation_id=CONVERSATIONS, provider=PROVIDERS, model=MODELS, owner=OWNERS, ttl=st.sampled_from([None, 50])
    )
    def other_program_binds(self, conversation_id, provider, model, owner, ttl):
        session = Session(conversation_id, provider, model, owner, 1_700_000_000)
        value = b'{ "theirs": [1], ' + session.to_json()[1:]
        self.world.write(conversation_id, value, ttl)
        self.model.other_writes(conversation_id, Held(session, self.model.now + ttl if ttl else inf))

    @rule(conversation_id=CONVERSATIONS, value=st.sampled_from([b"junk", b"{}", b""]))
    def other_program_poisons(self, conversation_id, value):
        self.world.write(conversation_id, value, None)
        is_list = not value and isinstance(self.world, Redis)
        self.model.other_writes(conversation_id, Held(None, inf, touchable=not is_list))

    @rule(conversation_id=CONVERSATIONS)
    def other_program_deletes(self, conversation_id):
        self.world.remove(conversation_id)
        self.model.other_deletes(conversation_id)

    @invariant()
    def store_comes_back_soon(self):
        """Reset the breaker, or most calls would find the store down."""
        self.steps_down += self.model.down
        if self.model.down and self.steps_down > MAX_STEPS_DOWN:
            self.come_up()

    @invariant()
    def store_holds_what_the_model_says(self):
        for conversation_id in IDS:
            value, held = self.world.read(conversation_id), self.model.held.get(conversation_id)
            assert (value is None) == (held is None), (conversation_id, value, held)
            if held and held.session:
                assert Session.from_json(value) == held.session
                self.older = [*self.older[-10:], held.session]
                if held.until < inf:
                    self.world.check_expiry(conversation_id, self.model.left(conversation_id))

    def teardown(self):
        self.world.come_up()

    @staticmethod
    def check_new(session, *fields):
        assert (session.id, session.provider, session.model, session.external_id) == fields
        assert abs(session.created_at - time.time()) < 5
