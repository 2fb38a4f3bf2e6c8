"""The model without a table."""

from __future__ import annotations

import pytest

from sessions_sticky.models import Session


@pytest.mark.parametrize("manager", [Session.objects, Session._default_manager, Session._base_manager])
def test_manager_finds_nothing_without_a_query(manager):  # without the mark for it, a query of the database fails
    assert list(manager.all()) == []
    assert manager.count() == 0
    assert not manager.filter(pk="conv-1").exists()
