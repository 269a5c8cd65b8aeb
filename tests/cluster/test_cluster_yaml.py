"""The examples of clusters: valid by Ray's own schema, one value to fill in, every shell line a shell can read."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from harness.clusters.aws import SSM
from harness.clusters.checking import UNFILLED, file_system_of
from harness.clusters.file import read_cluster_file
from harness.clusters.token import TOKEN

ROOT = Path(__file__).parents[2]
AWS, LOCAL = ROOT / "cluster.yaml", ROOT / "docs/cluster/local.yaml"
PROVIDER_KEYS = {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group"}
COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
            "head_start_ray_commands", "worker_start_ray_commands")  # fmt: skip


@pytest.fixture(params=[AWS, LOCAL], ids=lambda p: p.stem)
def path(request):
    return request.param


@pytest.fixture
def config(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def aws():
    return yaml.safe_load(AWS.read_text())


def validate(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_valid_for_ray_up(config):
    validate(config)


def test_ray_refuses_a_damaged_one(config):
    with pytest.raises(Exception, match=r"head_node_typo|Additional properties"):
        validate({**config, "head_node_typo": 1})


def test_provider_has_known_keys_only(aws):
    assert set(aws["provider"]) <= PROVIDER_KEYS


def test_one_value_is_to_be_filled_in(aws):
    assert AWS.read_text().count("fs-" + UNFILLED) == 2, "the line that mounts, and the comment that says so"
    assert file_system_of(aws) == "fs-" + UNFILLED


def test_workers_are_spot_machines_from_none_labelled_by_their_gpus(aws):
    types = {name: node for name, node in aws["available_node_types"].items() if name != aws["head_node_type"]}
    assert len(types) == 2
    for node in types.values():
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert node["min_workers"] == 0
        assert node["max_workers"] >= 1
        assert node["resources"]["GPU"] == 1
    assert {node["labels"]["gpu-type"] for node in types.values()} == {"A10G", "L4"}


def test_every_machine_names_an_image_and_has_metadata_of_the_second_version(aws):
    for node in aws["available_node_types"].values():
        assert node["node_config"]["ImageId"].startswith(SSM + "/aws/service/")
        assert "ubuntu-24.04" in node["node_config"]["ImageId"]
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
        assert node["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]


def test_every_node_gets_the_project_and_the_token(config):
    assert config["file_mounts"] == {"~/wsss-harness": ".", TOKEN: TOKEN}
    assert any(line.endswith("node.sh environment") for line in config["setup_commands"])


def test_every_shell_line_can_be_read_and_calls_a_step_that_there_is(config, path):
    lines = [line for name in COMMANDS for line in config.get(name) or ()]
    lines += re.findall(r"^#   ((?:uv|bash) .*)$", path.read_text(), re.M)
    assert len(lines) >= 7
    steps = re.findall(r"^  (\w+)\) ", (ROOT / "docs/cluster/node.sh").read_text(), re.M)
    for line in lines:
        read = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert read.returncode == 0, f"{line}: {read.stderr}"
        if "node.sh" in line:
            assert line.split("node.sh ")[1].split()[0] in steps, line


def test_the_line_for_a_sweep_carries_the_mode_of_the_token(path):
    (line,) = re.findall(r"^#   uv run ray exec .*$", path.read_text(), re.M)
    assert "RAY_AUTH_MODE=token wsss sweep" in line
    assert "address=auto" in line


def test_it_says_what_the_machines_bring():
    file = read_cluster_file(AWS)
    assert str(file).startswith("at most 4 a10g (8 CPUs, 1 GPUs, gpu-type A10G), 1 head (8 CPUs, 0 GPUs), by ")
    assert file.holds(1, 4, 1) == 4
    assert file.holds(1, 4, 0.5) == 8
    assert file.holds(2, 4, 1) == 2
    assert file.holds(1, 8, 0) == 5
    assert file.holds(1, 16, 0) == 0
    assert read_cluster_file(LOCAL).types == ()
