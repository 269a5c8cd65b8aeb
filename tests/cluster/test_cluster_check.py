"""`python -m harness.cluster` against a stand-in of AWS: what is wrong with a file is said before `ray up`."""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path

import pytest
import yaml

from harness.cli.parsing import main as answer
from harness.cluster import run
from harness.clusters import aws, preparing
from harness.clusters.checking import check_cluster
from harness.clusters.file import read_cluster_file
from harness.errors import BadInput

ROOT = Path(__file__).parents[2]
QUOTA = {"L-1216C47A": 64, "L-3819A6DF": 64}
"""vCPUs that the account may have: usual machines, spot machines with GPUs."""


@pytest.fixture(scope="module")
def cloud():
    """AWS in this process, with the image that the file names; no packet leaves the machine."""
    moto = pytest.importorskip("moto")
    import boto3

    secret = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        for name, value in secret.items():
            patch.setenv(name, value)
        made = aws.session
        images = boto3.client("ec2", "eu-central-1").describe_images(Owners=["099720109477"])["Images"]
        image = next(i["ImageId"] for i in images if i["Architecture"] == "x86_64")

        @cache
        def session(region: str):
            """Moto keeps neither the parameters of AWS for deep learning nor quotas of EC2."""
            found = made(region)
            found.client = cache(found.client)
            found.events.register("before-call.ssm.GetParameter", parameter)
            found.events.register("before-call.service-quotas.GetServiceQuota", quota)
            return found

        def parameter(params, **_):
            if b"/aws/service/deeplearning/" in params["body"] and b"ubuntu-24.04" in params["body"]:
                return Answer(200), {"Parameter": {"Value": image}}
            return None

        def quota(params, **_):
            (code,) = [code for code in QUOTA if code.encode() in params["body"]]
            return Answer(200), {"Quota": {"Value": float(QUOTA[code])}}

        patch.setattr(aws, "session", session)
        patch.setattr(preparing, "_wait", lambda state, what: None)
        yield session


class Answer:
    """What botocore asks of an HTTP answer."""

    def __init__(self, status: int):
        self.status_code = status


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a token, and the project as the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("a" * 64)
    token.chmod(0o600)
    monkeypatch.chdir(ROOT)
    return tmp_path


@pytest.fixture(scope="module")
def system(cloud):
    """The id that `prepare` prints; run twice, it makes everything once."""
    said: list[str] = []
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    made = preparing.prepare(config, said.append)
    assert len([line for line in said if line.startswith("  reached from")]) == 3, said
    again: list[str] = []
    assert preparing.prepare(config, again.append) == made
    assert not again
    return made


@pytest.fixture
def config(system):
    return yaml.safe_load((ROOT / "cluster.yaml").read_text().replace("fs-FILL-IN", system))


def problems(config, home) -> list[str]:
    path = home / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    try:
        check_cluster(read_cluster_file(path))
    except BadInput as e:
        return [f"{p.where}: {p.found}" for p in e.problems]
    return []


def test_the_example_is_all_right_once_the_id_is_filled_in(config, home, capsys):
    assert problems(config, home) == []
    assert answer(run, ["check", f"file={home / 'cluster.yaml'}"]) == 0
    assert "nothing is in the way: ray up -y" in capsys.readouterr().out


def test_the_example_as_it_is_wants_its_id(cloud, home, capsys):
    assert answer(run, ["check"]) == 2
    said = capsys.readouterr().err
    assert "setup_commands[0]" in said
    assert said.count("fix:") == 1, said


def test_what_prepare_made_lets_in_nothing_but_ssh(system, cloud):
    ec2 = cloud("eu-central-1").client("ec2")
    group = firewall(ec2)
    assert aws.open_to_all(group) == []
    outside = [r for r in group["IpPermissions"] if r.get("IpRanges")]
    assert [(r["FromPort"], r["ToPort"]) for r in outside] == [(22, 22)]
    (within,) = [r for r in group["IpPermissions"] if r.get("UserIdGroupPairs")]
    assert within["UserIdGroupPairs"][0]["GroupId"] == group["GroupId"]


A10G, L4, HEAD = (f"available_node_types.{name}" for name in ("a10g", "l4", "head"))
WRONG = [
    ("provider.region", "eu-central-9", "provider.region: 'eu-central-9' is no region of AWS"),
    (f"{A10G}.node_config.InstanceType", "g5.3xlarge", "a10g.InstanceType: InvalidInstanceType"),
    (f"{A10G}.node_config.ImageId", "ami-00000000000000000", "a10g.ImageId: InvalidAMIID.NotFound"),
    (f"{A10G}.node_config.InstanceType", "g5g.2xlarge", "is for x86_64, g5g.2xlarge is arm64"),
    (f"{L4}.node_config.ImageId", "resolve:ssm:/aws/service/typo", "l4.ImageId: ParameterNotFound"),
    (f"{L4}.resources.GPU", 4, "l4.resources: 8 CPUs and 4 GPUs, but g6.2xlarge has 8 and 1"),
    (
        f"{L4}.node_config.InstanceType",
        "g6.48xlarge",
        "l4: 4 with 192 vCPUs each, but the account's quota L-3819A6DF is",
    ),
    (f"{HEAD}.node_config.ImageId", None, "head.ImageId: is not given: Ray's own default has glibc 2.27"),
    (f"{HEAD}.node_config.IamInstanceProfile.Name", "nobody", "IamInstanceProfile: NoSuchEntity"),
    (f"{HEAD}.node_config.IamInstanceProfile", None, "IamInstanceProfile of the head: is not given"),
    ("provider.security_group.GroupName", "mine", "provider.security_group: mine is not there in vpc-"),
    ("setup_commands", ["bash node.sh shared fs-00000000"], "file system fs-00000000: FileSystemNotFound"),
    ("file_mounts", {"~/wsss-harness": "."}, "file_mounts: has no token"),
    ("file_mounts.~/wsss-harness", "docs", "docs is not the project"),
    (f"{L4}.node_config", None, "schema: available_node_types.l4: 'node_config' is a required"),
    ("head_node_type", "haed", "schema: "),
]


@pytest.mark.parametrize(
    ("where", "value", "found"), WRONG, ids=[w.rpartition(".")[2] + str(v)[:12] for w, v, _ in WRONG]
)
def test_each_wrong_value_is_said(config, home, where, value, found):
    *way, last = where.split(".")
    inner = config
    for name in way:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    said = problems(config, home)
    assert len([line for line in said if found in line]) == 1, said


def firewall(ec2):
    filters = [{"Name": "group-name", "Values": ["wsss-harness"]}]
    (group,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return group


def node(config, name):
    return config["available_node_types"][name]["node_config"]


def test_several_are_said_at_once(config, home):
    config = copy.deepcopy(config)
    node(config, "a10g").update(ImageId="ami-00000000000000000")
    node(config, "l4").update(InstanceType="g6.3xlarge")
    (home / ".ray/auth_token").unlink()
    assert len(problems(config, home)) == 3


def test_a_zone_without_a_way_to_the_files_is_said(config, home, cloud, system):
    efs = cloud("eu-central-1").client("efs")
    target = efs.describe_mount_targets(FileSystemId=system)["MountTargets"][0]
    efs.delete_mount_target(MountTargetId=target["MountTargetId"])
    zone = target["AvailabilityZoneName"]
    assert problems(config, home) == [f"file system {system}: nodes in {zone} cannot reach it (NFS, port 2049)"]
    preparing.prepare(config, lambda line: None)
    assert problems(config, home) == []


def test_a_port_that_is_open_to_the_internet_is_said(config, home, cloud):
    ec2 = cloud("eu-central-1").client("ec2")
    group = firewall(ec2)
    rule = [{"IpProtocol": "tcp", "FromPort": 6379, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=rule)
    try:
        found = "provider.security_group: wsss-harness lets the internet in on tcp 6379 to 8265"
        assert problems(config, home) == [found]
    finally:
        ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=rule)


def test_a_file_that_names_no_firewall_has_that_of_ray_for_every_command(config, home, cloud):
    config = copy.deepcopy(config)
    del config["provider"]["security_group"]
    assert "provider.security_group: ray-autoscaler-wsss-harness is not there in vpc-" in problems(config, home)[0]
    preparing.prepare(config, lambda line: None)
    assert problems(config, home) == []
    ec2 = cloud("eu-central-1").client("ec2")
    (group,) = aws.firewalls(ec2, "ray-autoscaler-wsss-harness")
    assert aws.open_to_all(group) == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda token: token.chmod(0o644), "can be read by others"),
        (lambda token: token.write_text("\n"), "is empty"),
        (os.unlink, "is not there"),
    ],
)
def test_a_token_that_would_not_do_is_said(config, home, spoil, found):
    spoil(home / ".ray/auth_token")
    (said,) = problems(config, home)
    assert found in said


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert answer(run, ["token"]) == 0
    token = tmp_path / ".ray/auth_token"
    made = token.read_text()
    assert len(made) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    assert "a new token" in capsys.readouterr().out
    token.chmod(0o644)
    assert answer(run, ["token"]) == 0
    assert "mode 644; now it is for you alone" in capsys.readouterr().out
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() == made
    assert made not in capsys.readouterr().out


def test_without_credentials_nothing_else_is_asked(config, home, monkeypatch):
    from botocore.exceptions import NoCredentialsError

    def nobody(region):
        try:
            raise NoCredentialsError
        except NoCredentialsError as error:
            raise BadInput(aws.Problem("credentials", aws.said(error), "aws configure")) from error

    monkeypatch.setattr(aws, "session", nobody)
    assert problems(config, home) == ["credentials: Unable to locate credentials"]


def test_remove_deletes_what_prepare_made_and_asks_for_the_id(config, home, cloud, system, capsys):
    path = home / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    assert answer(run, ["remove", f"file={path}"]) == 2
    assert f"delete={system}" in capsys.readouterr().err
    assert answer(run, ["remove", f"file={path}", f"delete={system}"]) == 0
    session = cloud("eu-central-1")
    assert session.client("efs").describe_file_systems()["FileSystems"] == []
    assert session.client("iam").list_roles()["Roles"] == []
    groups = session.client("ec2").describe_security_groups()["SecurityGroups"]
    assert "wsss-harness" not in [g["GroupName"] for g in groups]
    assert answer(run, ["prepare", f"file={path}"]) == 0
    assert "in place of" in capsys.readouterr().out


def test_files_that_are_no_cluster_s_are_said(home, capsys):
    for text, found in (("a: [", "is no YAML (line"), ("a: 1", "has no provider")):
        (home / "x.yaml").write_text(text)
        assert answer(run, ["check", f"file={home / 'x.yaml'}"]) == 2
        assert found in capsys.readouterr().err
    assert answer(run, ["check", f"file={home / 'none.yaml'}"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_machines_of_one_s_own_need_no_cloud(home, capsys):
    text = (ROOT / "docs/cluster/local.yaml").read_text()
    path = home / "local.yaml"
    path.write_text(text)
    assert answer(run, ["check", f"file={path}"]) == 2
    assert capsys.readouterr().err.count("is still the example's") == 4
    for i, word in enumerate(("HEAD", "WORKER-1", "WORKER-2", "USER"), 1):
        text = text.replace(f"{word}-FILL-IN", f"10.0.0.{i}")
    path.write_text(text)
    assert answer(run, ["check", f"file={path}"]) == 0
    assert "3 machines, each with what it has: 10.0.0.1, 10.0.0.2, 10.0.0.3" in capsys.readouterr().out
    assert answer(run, ["prepare", f"file={path}"]) == 2
