"""Reading the environment."""

from __future__ import annotations

import pytest

from sentinel_project import environment


def refused(call, *args, **kwargs) -> str:
    """Return the one line that ends the program."""
    with pytest.raises(SystemExit) as caught:
        call(*args, **kwargs)
    assert isinstance(caught.value.code, str)
    assert caught.value.code.isprintable()  # so also one line
    return caught.value.code


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch):
    """Set the variable X."""
    return lambda text: monkeypatch.setenv("X", text)


def test_read_gives_the_default_when_the_variable_is_not_set(monkeypatch):
    monkeypatch.delenv("X", raising=False)
    assert environment.read("X", int, default=5) == 5
    assert environment.boolean("X", default=True) is True
    assert environment.number("X", default=7, least=0, most=1) == 7
    assert environment.choice("X", ("a", "b"), default="b") == "b"
    assert environment.items("X", default=("a",), pattern="a", allowed="a") == ["a"]
    assert environment.read_url("X", str, default="x://y", allowed="URLs") == "x://y"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("Yes", True), ("ON", True)])
@pytest.mark.parametrize("negative", [False, True])
def test_boolean_reads_a_truth_value_when_it_is_one(given, text, value, negative):
    opposite = {"1": "0", "true": "false", "Yes": "No", "ON": "OFF"}
    given(opposite[text] if negative else text)
    assert environment.boolean("X", default=negative) is (value is not negative)


@pytest.mark.parametrize("text", ["maybe", "", "2", " 1", "tru", "None"])
def test_boolean_ends_the_program_when_it_is_invalid(given, text):
    given(text)
    assert refused(environment.boolean, "X", default=False) == f"X must be 1 or 0, true or false, not {text!r}"


@pytest.mark.parametrize("text", ["0", "1", "600"])
def test_number_reads_a_whole_number_when_it_is_within_bounds(given, text):
    given(text)
    assert environment.number("X", default=5, least=0, most=600) == int(text)


@pytest.mark.parametrize("text", ["-1", "601", "abc", "", "1.5", "1e2", "0x10", 5000 * "9"])
def test_number_ends_the_program_when_it_is_invalid_or_out_of_bounds(given, text):
    given(text)
    line = refused(environment.number, "X", default=5, least=0, most=600)
    assert line == f"X must be a whole number from 0 to 600, not {text!r}"


@pytest.mark.parametrize("text", ["", "A", "c", "a or b", "a,b"])
def test_choice_ends_the_program_when_it_is_not_an_option(given, text):
    given(text)
    assert refused(environment.choice, "X", ("a", "b"), default="a") == f"X must be a or b, not {text!r}"


def test_items_splits_at_commas_when_there_are_several(given):
    given(" a , b,,c ")
    assert environment.items("X", default=(), pattern="[a-z]", allowed="letters") == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["", ",", " ", "a,B", "ab"])
def test_items_ends_the_program_when_one_is_invalid_or_there_is_none(given, text):
    given(text)
    line = refused(environment.items, "X", default=(), pattern="[a-z]", allowed="letters with commas")
    assert line == f"X must be letters with commas, not {text!r}"


def test_read_shows_the_value_readably_when_it_has_control_characters(given):
    given("a\nb\x1b[2J")
    assert "'a\\nb\\x1b[2J'" in refused(environment.choice, "X", ("a", "b"), default="a")


def broken(url: str) -> str:
    raise KeyError(f"no such thing as {url}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host/0", "redis://..."),
        ("http://user:secret@[::1", ""),
        ("secret", ""),
        ("", ""),
    ],
)
def test_read_url_ends_the_program_without_the_password_when_it_cannot_be_used(given, url, shown):
    given(url)
    line = refused(environment.read_url, "X", broken, default="", allowed="redis://host")
    assert line.startswith(f"X must be redis://host, not {shown}")
    assert line.endswith("...")
    assert "secret" not in line
