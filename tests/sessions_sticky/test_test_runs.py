"""Complete test runs of another project, with pytest and Django's runner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.cache.backends.filebased import FileBasedCache

import sessions_sticky

pytestmark = pytest.mark.slow

ROOT = Path(sessions_sticky.__file__).parents[1]
SETTINGS = """
from sessions_sticky import cache_config

SECRET_KEY = "x"
INSTALLED_APPS = ["sessions_sticky"]
CACHES = {"default": cache_config("redis://127.0.0.1:1/0")}  # unreachable: a test that uses it would fail
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEST_RUNNER = "sessions_sticky.testing.Runner"
"""
CASES = """
import unittest

from django.core.cache import cache
from django.test import TestCase, override_settings

from sessions_sticky import Outcome, sessions
from sessions_sticky.testing import advance_time, store_down


class Bindings:
    def test_binds(self):
        for provider in ("openai", "mistral"):
            session, outcome = sessions.resolve("conv-123", provider=provider, model="m", owner="o")
            self.assertEqual(session.provider, "openai")
        self.assertEqual(outcome, Outcome.HIT)

    test_binds_again = test_binds

    def test_remembers_nothing_of_other_tests(self):
        with store_down():
            self.assertEqual(self.resolve("mistral").session.provider, "mistral")
        self.assertEqual(self.resolve("mistral").outcome, Outcome.CREATED)

    def test_expires(self):
        self.resolve("mistral")
        advance_time(86_400)
        self.assertEqual(self.resolve("mistral").outcome, Outcome.CREATED)

    def resolve(self, provider):
        return sessions.resolve("conv-123", provider=provider, model="m", owner="o")


class WithDatabase(Bindings, TestCase):
    pass


class Plain(Bindings, unittest.TestCase):
    pass


@override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}})
class WithoutCaches(Bindings, TestCase):
    def test_settings_of_a_class_hold(self):
        cache.set("mine", "kept")
        self.assertIsNone(cache.get("mine"))
"""
FUNCTIONS = """
import pytest
from django.conf import settings as django_settings

from sessions_sticky import SessionNotSupported, sessions
from sessions_sticky.testing import create_session


@pytest.mark.parametrize("turn", [1, 2])
def test_begins_without_sessions(turn):
    assert sessions.get("conv-123") is None
    create_session("conv-123")


@pytest.mark.parametrize("turn", [1, 2])
def test_has_a_valkey(sessions_valkey, settings, turn):
    assert sessions.all().count() == 0
    create_session("conv-123")
    assert sessions.filter(provider="openai").count() == 1
    settings.SESSIONS_STICKY = {"HISTORY_LENGTH": 0}


def test_settings_are_those_of_the_project():
    assert not hasattr(django_settings, "SESSIONS_STICKY")
    assert django_settings.CACHES["default"]["LOCATION"] == "redis://127.0.0.1:1/0"


@pytest.mark.parametrize("turn", [1, 2])
def test_keeps_sessions_in_memory_whatever_it_sets(settings, turn):
    settings.CACHES = {"default": {**settings.CACHES["default"], "KEY_PREFIX": "tests"}}
    assert sessions.get("conv-123") is None
    create_session("conv-123")
    with pytest.raises(SessionNotSupported):
        sessions.all().count()
"""
SHARING = """
from django.core.cache import cache
from django.test import SimpleTestCase

from sessions_sticky.testing import create_session


class Sharing(SimpleTestCase):
    def test_finds_what_the_project_keeps_beside_its_sessions(self):
        create_session("conv-123")
        self.assertEqual(cache.get("flag"), "on")
"""
OUTSIDE_OF_TESTS = """
import atexit
import threading
import time

from django.test import SimpleTestCase

from sessions_sticky.testing import create_session

create_session("at-import")
ended = threading.Event()


def outlive():
    ended.wait(30)
    time.sleep(0.2)
    create_session("by-a-thread")


threading.Thread(target=outlive).start()
atexit.register(create_session, "at-exit")


class Binds(SimpleTestCase):
    def test_binds(self):
        create_session("in-a-test")
        ended.set()
"""
HOOKS = """
from sessions_sticky.testing import create_session


def pytest_configure():
    create_session("in-pytest_configure")


def pytest_collection_modifyitems():
    create_session("in-pytest_collection_modifyitems")


def pytest_collection_finish():
    create_session("in-pytest_collection_finish")


def pytest_sessionstart():
    create_session("in-pytest_sessionstart")


def pytest_sessionfinish():
    create_session("in-pytest_sessionfinish")


def pytest_unconfigure():
    create_session("in-pytest_unconfigure")
"""
LATE_SETUP = """
import django


def {hook}():
    django.setup()
"""
NOTHING_OF = """
import sys

def test_nothing():
    assert "{}" not in sys.modules
"""
WITHOUT_DJANGO = ["-m", "pytest", "-q", "-p", "sessions_sticky.pytest_plugin", "-p", "no:cacheprovider"]
PYTEST = [*WITHOUT_DJANGO, "-p", "pytest_django.plugin"]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "mysettings.py").write_text(SETTINGS)
    (tmp_path / "test_cases.py").write_text(CASES)
    return tmp_path


def run(project, *arguments):
    variables = {"DJANGO_SETTINGS_MODULE": "mysettings", "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_pytest_isolates_functions_and_test_cases(project):
    (project / "test_functions.py").write_text(FUNCTIONS)
    status, output = run(project, *PYTEST)
    assert (status, "20 passed" in output) == (0, True), output


@pytest.mark.parametrize("options", [[], ["--parallel=2"]])
def test_runner_of_the_app_isolates_test_cases(project, options):
    status, output = run(project, "-m", "django", "test", *options)
    assert (status, "Ran 13 tests" in output) == (0, True), output


@pytest.mark.parametrize("command", [PYTEST, ["-m", "django", "test"]], ids=["pytest", "runner"])
def test_cache_of_the_project_keeps_its_other_values_and_gets_no_sessions(project, command):
    entry = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(project / "kept")}
    (project / "mysettings.py").write_text(f"{SETTINGS}\nCACHES = {{'default': {entry!r}}}")
    (project / "test_cases.py").write_text(SHARING)
    FileBasedCache(entry["LOCATION"], {}).set("flag", "on")
    status, output = run(project, *command)
    assert (status, len(list((project / "kept").iterdir()))) == (0, 1), output


@pytest.fixture
def kept(project):
    """The folder of the project's own cache, in which no session may be."""
    entry = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(project / "kept")}
    (project / "mysettings.py").write_text(f"{SETTINGS}\nCACHES = {{'default': {entry!r}}}")
    (project / "test_cases.py").write_text(OUTSIDE_OF_TESTS)
    (project / "kept").mkdir()
    return project / "kept"


@pytest.mark.parametrize("command", [PYTEST, ["-m", "django", "test"]], ids=["pytest", "runner"])
def test_run_writes_no_session_when_they_are_made_outside_of_tests(project, kept, command):
    (project / "conftest.py").write_text(HOOKS)
    status, output = run(project, *command)
    assert (status, list(kept.iterdir())) == (0, []), output
    assert "Exception" not in output


@pytest.mark.parametrize("hook", ["pytest_configure", "pytest_sessionstart"])
def test_plugin_keeps_sessions_in_memory_when_a_conftest_sets_django_up(project, kept, hook):
    (project / "conftest.py").write_text(LATE_SETUP.format(hook=hook))
    status, output = run(project, *WITHOUT_DJANGO)
    assert (status, list(kept.iterdir())) == (0, []), output


def test_runner_keeps_sessions_in_memory_when_workers_are_spawned(project):
    (project / "manage.py").write_text(
        """
import multiprocessing, os, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
    )
    status, output = run(project, "manage.py", "test", "--parallel=2")
    assert (status, "Ran 13 tests" in output) == (0, True), output


def test_plugin_does_nothing_when_the_app_is_not_installed(project):
    (project / "mysettings.py").write_text(SETTINGS.replace('"sessions_sticky"]', "]"))
    (project / "test_cases.py").write_text(NOTHING_OF.format("sessions_sticky.testing"))
    status, output = run(project, *PYTEST)
    assert (status, "1 passed" in output) == (0, True), output


def test_plugin_does_nothing_when_there_is_no_django(project):
    (project / "test_cases.py").write_text(NOTHING_OF.format("django"))
    status, output = run(project, *WITHOUT_DJANGO)
    assert (status, "1 passed" in output) == (0, True), output
