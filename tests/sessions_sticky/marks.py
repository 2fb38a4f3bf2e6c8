"""Marks that narrow a test to the stores that can do what it needs."""

from __future__ import annotations

import pytest

from tests.conftest import COMPARING_STORES, EXPIRY_STORES, PORTABLE_STORES, REDIS_STORES

on_comparing = pytest.mark.parametrize("store_name", COMPARING_STORES, indirect=True)
on_expiry = pytest.mark.parametrize("store_name", EXPIRY_STORES, indirect=True)
on_redis = pytest.mark.parametrize("store_name", REDIS_STORES, indirect=True)
on_portable = pytest.mark.parametrize("store_name", PORTABLE_STORES, indirect=True)
