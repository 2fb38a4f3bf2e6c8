"""The simulation of bad weather: the gateway's own routing on simulated providers, in virtual time."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from bench import weather

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("sky", weather.SKIES, ids=lambda sky: sky.name.partition(":")[0])
def test_weather_refuses_and_moves_nothing(settings: Settings, sky: weather.Sky) -> None:
    world = weather.simulate(sky, weather.gateway, 1)
    assert sum(world.outcomes.values()) > 2000
    assert world.outcomes["refused"] <= (60 if sky.stalls else 0)  # nothing is repeated once a stream has begun
    assert world.bound.items() >= world.first.items()
    assert max(world.answered.values()) < 0.4 * sum(world.answered.values())


def test_weather_shows_what_plain_stickiness_refuses(settings: Settings) -> None:
    stalling = next(sky for sky in weather.SKIES if sky.stalls)
    assert weather.simulate(stalling, weather.plain, 1).outcomes["refused"] > 200


def test_weather_is_the_same_when_its_seed_is(settings: Settings) -> None:
    sky = weather.SKIES[-1]
    assert weather.row(sky, 3) == weather.row(sky, 3)
