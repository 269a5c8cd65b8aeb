"""What a cluster on AWS needs once and keeps: file system, firewall, and the role of its head."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from harness.clusters import aws
from harness.errors import BadInput, Problem

NAME = "wsss-harness"
PROFILE = "wsss-harness-head"
WAIT_S = 180.0
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
RIGHTS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:Describe*"],
            "Resource": "*",
        },
        {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": "arn:aws:ssm:*::parameter/aws/service/*"},
        {
            "Effect": "Allow",
            "Action": "iam:CreateServiceLinkedRole",
            "Resource": "*",
            "Condition": {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
        },
    ],
}
"""What the head does with AWS: start and end machines, and look up the image that the file names."""
Mapped = Mapping[str, Any]


def prepare(config: Mapped, say: Callable[[str], None]) -> str:
    """Makes what is missing and returns the id of the file system; what is there already stays as it is.

    Raises BadInput for region, credentials and rights that do not do.
    """
    session = aws.session(str(config["provider"].get("region")))
    problems: list[Problem] = []
    system = ""
    with aws.asked("prepare", "ask for the right that it names, then again: what is made stays", problems):
        subnets = aws.subnets_of_nodes(config, session)
        group = _firewall(session, subnets[0]["VpcId"], aws.firewall_name(config), say)
        _role(session, say)
        system = _file_system(session, say)
        _reached(session, system, subnets, group, say)
    if problems:
        raise BadInput(problems)
    return system


def _firewall(session: Any, vpc: str, name: str, say: Callable[[str], None]) -> str:
    ec2 = session.client("ec2")
    if groups := aws.firewalls(ec2, name, vpc):
        return str(groups[0]["GroupId"])
    made = ec2.create_security_group(
        GroupName=name, VpcId=vpc, Description="Nodes of a wsss-harness cluster: each other, and SSH from outside"
    )["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=made,
        IpPermissions=[
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": made}]},
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        ],
    )
    say(f"firewall {name} ({made}): nodes reach each other, SSH is open")
    return str(made)


def _role(session: Any, say: Callable[[str], None]) -> None:
    iam = session.client("iam")
    if not _there(lambda: iam.get_role(RoleName=PROFILE)):
        iam.create_role(RoleName=PROFILE, AssumeRolePolicyDocument=json.dumps(TRUST))
        say(f"role {PROFILE}: starts and ends machines, reads names of images")
    iam.put_role_policy(RoleName=PROFILE, PolicyName=NAME, PolicyDocument=json.dumps(RIGHTS))
    if not _there(lambda: iam.get_instance_profile(InstanceProfileName=PROFILE)):
        iam.create_instance_profile(InstanceProfileName=PROFILE)
    if not iam.get_instance_profile(InstanceProfileName=PROFILE)["InstanceProfile"]["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=PROFILE, RoleName=PROFILE)


def _there(call: Callable[[], Any]) -> bool:
    from botocore.exceptions import ClientError

    try:
        call()
    except ClientError as error:
        if aws.code_of(error) != "NoSuchEntity":
            raise
        return False
    return True


def _file_system(session: Any, say: Callable[[str], None]) -> str:
    efs = session.client("efs")
    found = efs.describe_file_systems(CreationToken=NAME)["FileSystems"]
    if not found:
        tags = [{"Key": "Name", "Value": NAME}]
        made = efs.create_file_system(CreationToken=NAME, Encrypted=True, ThroughputMode="elastic", Tags=tags)
        say(f"file system {made['FileSystemId']}: for stores and datasets, paid by what lies in it")
        found = [made]
    system = str(found[0]["FileSystemId"])
    _wait(lambda: efs.describe_file_systems(FileSystemId=system)["FileSystems"][0]["LifeCycleState"], system)
    return system


def _reached(session: Any, system: str, subnets: list[Mapped], group: str, say: Callable[[str], None]) -> None:
    """One mount target in every zone that nodes may be in, behind the nodes' firewall."""
    efs = session.client("efs")
    targets = {t["AvailabilityZoneName"]: t for t in efs.describe_mount_targets(FileSystemId=system)["MountTargets"]}
    for zone, subnet in {s["AvailabilityZone"]: s["SubnetId"] for s in subnets}.items():
        if zone not in targets:
            targets[zone] = efs.create_mount_target(FileSystemId=system, SubnetId=subnet, SecurityGroups=[group])
            say(f"  reached from {zone}")
            continue
        target = targets[zone]["MountTargetId"]
        groups = efs.describe_mount_target_security_groups(MountTargetId=target)["SecurityGroups"]
        if group not in groups:
            efs.modify_mount_target_security_groups(MountTargetId=target, SecurityGroups=[*groups, group])
    for target in targets.values():
        _wait(lambda t=target: _state(efs, t["MountTargetId"]), target["MountTargetId"])  # type: ignore[misc]


def _state(efs: Any, target: str) -> str:
    return str(efs.describe_mount_targets(MountTargetId=target)["MountTargets"][0]["LifeCycleState"])


def _wait(state: Callable[[], str], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while (now := state()) != "available":
        if time.monotonic() > until:
            raise BadInput(Problem(what, f"is still {now!r} after {WAIT_S:.0f} s", "the same command again"))
        time.sleep(2.0)


def remove(config: Mapped, system: str, say: Callable[[str], None]) -> None:
    """Deletes file system, firewall and role: everything that `prepare` made, with all stores and datasets in it.

    Raises BadInput where machines still use them.
    """
    session = aws.session(str(config["provider"].get("region")))
    problems: list[Problem] = []
    fix = "`ray down` first; then the same command again: what is gone stays gone"
    with aws.asked("remove", fix, problems):
        efs, ec2, iam = (session.client(name) for name in ("efs", "ec2", "iam"))
        for target in efs.describe_mount_targets(FileSystemId=system)["MountTargets"]:
            efs.delete_mount_target(MountTargetId=target["MountTargetId"])
        until = time.monotonic() + WAIT_S
        while efs.describe_mount_targets(FileSystemId=system)["MountTargets"] and time.monotonic() < until:
            time.sleep(2.0)
        efs.delete_file_system(FileSystemId=system)
        say(f"file system {system} is deleted")
        for group in aws.firewalls(ec2, aws.firewall_name(config)):
            ec2.delete_security_group(GroupId=group["GroupId"])
            say(f"firewall {group['GroupName']} is deleted")
        if _there(lambda: iam.get_instance_profile(InstanceProfileName=PROFILE)):
            iam.remove_role_from_instance_profile(InstanceProfileName=PROFILE, RoleName=PROFILE)
            iam.delete_instance_profile(InstanceProfileName=PROFILE)
        if _there(lambda: iam.get_role(RoleName=PROFILE)):
            iam.delete_role_policy(RoleName=PROFILE, PolicyName=NAME)
            iam.delete_role(RoleName=PROFILE)
            say(f"role {PROFILE} is deleted")
    if problems:
        raise BadInput(problems)
