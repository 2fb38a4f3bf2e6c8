"""Prices and the life of prompt caches in the file of providers."""

from __future__ import annotations

import pytest

from sentinel_project.gateway.providers.file import load_providers
from sessions_sticky import Price, Usage

ENTRY = '[[provider]]\nname = "north"\nbase_url = "http://127.0.0.1:1/v1"\nmodels = ["m", "n"]\n'


@pytest.fixture
def load(tmp_path):
    def load(text: str):
        file = tmp_path / "providers.toml"
        file.write_text(ENTRY + text)
        (provider,) = load_providers(str(file))
        return provider

    return load


def test_prices_are_read_by_model(load):
    provider = load("cache_seconds = 3600\n[provider.price.m]\ninput = 2.5\ncached_input = 0.25\noutput = 10\n")
    assert provider.cache_seconds == 3_600
    assert provider.prices == {"m": Price(input=2.5, cached_input=0.25, output=10)}
    assert provider.prices["m"].cost(Usage(1_000, read=800, output=10)) == 200 * 2.5 + 800 * 0.25 + 100


def test_providers_have_no_prices_and_five_minutes_by_default(load):
    assert (load("").prices, load("").cache_seconds) == ({}, 300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price = { other = { input = 1 } }", "'other' is not one of its models"),
        ("price = { m = { output = 1 } }", "not one in which m is { output = 1 }"),
        ("price = { m = { input = -1 } }", "not one in which m is { input = -1 }"),
        ("price = { m = { input = 1, cached = 1 } }", "not one in which m is { input = 1, cached = 1 }"),
        ("price = { m = { input = [1] } }", "not one in which m is { input = a list }"),
        ("price = { m = {} }", "not one in which m is an empty table"),
        (
            "price = { m = { output = 1 } }",
            "tables of input (required), cached_input, cache_write and output, from 0 to ",
        ),
        ("price = { m = 3 }", "not one in which m is 3"),
        ("price = 3", "not 3"),
        ("cache_seconds = 0", "must be a number of seconds above 0, up to 86400, not 0"),
    ],
)
def test_file_says_what_a_price_must_be(load, text, message):
    with pytest.raises(ValueError, match=r"providers\.toml.*line 5") as caught:
        load(text + "\n")
    assert message in str(caught.value)
