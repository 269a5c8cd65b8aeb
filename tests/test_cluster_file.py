"""`cluster.yaml` is valid by Ray's own schema, and by the keys that this schema does not look at."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROVIDER_KEYS = {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips"}


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_valid_for_ray_up(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_ray_refuses_a_damaged_one(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match=r"head_node_typo|Additional properties"):
        validate_config(prepare_config({**config, "head_node_typo": 1}))


def test_provider_has_known_keys_only(config):
    assert set(config["provider"]) <= PROVIDER_KEYS


def test_workers_have_gpus_and_the_locked_project(config):
    workers = config["available_node_types"]["gpu_worker"]
    assert workers["node_config"]["InstanceType"].startswith(("g", "p"))
    assert workers["max_workers"] >= 1
    assert any("uv sync --frozen --extra cluster" in c for c in config["setup_commands"])
    assert all(
        "RAY_AUTH_MODE=token" in " ".join(config[k]) for k in ("head_start_ray_commands", "worker_start_ray_commands")
    )
