"""What Ray Tune tells of its actors, where the driver has credentials of AWS."""

from __future__ import annotations

import pytest
from ray.tune.execution import class_cache

from harness.tuning.ray_adapters import credentials_stay_here


class Trainable:
    """Stands for a run's actor."""


def told() -> dict[str, str]:
    """The environment that Tune asks for an actor, which Ray writes into `runtime_env_agent.log`."""
    actor = class_cache._ActorClassCache().get(Trainable)
    return dict(actor._default_options["runtime_env"]["env_vars"])


def test_keys_of_aws_are_in_no_actors_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
    for name in names:
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    with credentials_stay_here():
        assert told()["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
        assert not set(names) & told().keys()
    assert set(names) <= told().keys(), "Tune sends them otherwise; without that the context manager can go"
