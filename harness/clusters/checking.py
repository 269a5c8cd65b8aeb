"""A cluster's file before `ray up` runs it: everything that would stop it, found from here, all at once."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.clusters import aws
from harness.clusters.file import LOCAL, ClusterFile
from harness.clusters.token import MAKE, TOKEN
from harness.errors import BadInput, Problem

UNFILLED = "FILL-IN"
"""What the examples have where a person writes something."""
NFS_PORT = 2049
_SHARED = re.compile(r"node\.sh shared (\S+)")
Mapped = Mapping[str, Any]


def check_cluster(file: ClusterFile) -> list[str]:
    """Lines that say what the file would start. Raises BadInput with all problems of file, token, folders and cloud."""
    config = file.config
    problems = [*_unfilled(config), *_schema(config), *_mounts(config)]
    provider = config["provider"].get("type")
    lines = [f"{file.path}: {provider} cluster {config.get('cluster_name', 'default')!r}"]
    if provider == "aws" and not any(p.where == "schema" for p in problems):
        problems += _cloud(config)
        lines.append(f"  {file}" if file.types else "  what its machines have is not said")
    elif provider == LOCAL:
        machines = [config["provider"].get("head_ip"), *config["provider"].get("worker_ips", [])]
        lines.append(f"  {len(machines)} machines, each with what it has: {', '.join(map(str, machines))}")
    if problems:
        raise BadInput(problems)
    return lines


def file_system_of(config: Mapped) -> str | None:
    """The id of the file system that nodes mount; None where no setup command mounts one."""
    found = (_SHARED.search(line) for line in config.get("setup_commands") or ())
    return next((m[1] for m in found if m), None)


def _unfilled(config: Mapped) -> list[Problem]:
    found = []

    def look(where: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                look(f"{where}.{name}" if where else str(name), inner)
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                look(f"{where}[{i}]", inner)
        elif isinstance(value, str) and UNFILLED in value:
            fix = "write what `python -m harness.cluster prepare` prints" if "fs-" in value else "fill it in"
            found.append(Problem(where, f"{value!r} is still the example's", fix))

    look("", config)
    return found


def _schema(config: Mapped) -> list[Problem]:
    """What Ray itself refuses. It reads the file as `ray up` does, and sends nothing anywhere."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    fix = "see the example that `wsss files` prints, and Ray's cluster YAML reference"
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            validate_config(prepare_config(copy.deepcopy(dict(config))))
    except ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "the file"
        return [Problem("schema", f"{where}: {error.message.splitlines()[0]}", fix)]
    except (ValueError, KeyError, TypeError, AttributeError, SystemExit) as error:
        text = (said.getvalue().strip().splitlines() or [str(error)])[-1]
        return [Problem("schema", f"Ray refuses it: {text}", fix)]
    return []


def _mounts(config: Mapped) -> list[Problem]:
    """Files that are copied to the nodes: they are there, the project is one, and the token is for its owner alone."""
    problems = []
    mounts = {str(k): str(v) for k, v in (config.get("file_mounts") or {}).items()}
    for remote, local in mounts.items():
        path, where = Path(local).expanduser(), f"file_mounts.{remote}"
        if remote == TOKEN:
            problems += _token(where, path)
        elif not path.exists():
            problems.append(Problem(where, f"{path.absolute()} does not exist", "run it where the project lies"))
        elif not all((path / name).is_file() for name in ("pyproject.toml", "uv.lock", "docs/cluster/node.sh")):
            found = f"{path.absolute()} is not the project: it lacks pyproject.toml, uv.lock or docs/cluster/node.sh"
            problems.append(Problem(where, found, "run it in a checkout of the project"))
    if TOKEN not in mounts:
        problems.append(Problem("file_mounts", "has no token: nodes would not find each other", f"{TOKEN}: {TOKEN}"))
    return problems


def _token(where: str, path: Path) -> list[Problem]:
    try:
        mode, size = path.stat().st_mode, len(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return [Problem(where, f"{path} is not there or cannot be read", MAKE)]
    if not size:
        return [Problem(where, f"{path} is empty", f"rm {path}; {MAKE}")]
    if stat.S_IMODE(mode) & 0o077:
        return [Problem(where, f"{path} can be read by others: whoever has it runs code there", MAKE)]
    return []


def _cloud(config: Mapped) -> list[Problem]:
    """What AWS has to say; nothing else can be asked where region or credentials are wrong."""
    try:
        session = aws.session(str(config["provider"].get("region")))
    except BadInput as error:
        return error.problems
    problems = aws.problems_of_nodes(config, session)
    profile = config["available_node_types"][config["head_node_type"]]["node_config"].get("IamInstanceProfile", {})
    if name := profile.get("Name"):
        with aws.asked("IamInstanceProfile", aws.PREPARE, problems):
            session.client("iam").get_instance_profile(InstanceProfileName=name)
    elif any(n["node_config"].get("ImageId", "").startswith(aws.SSM) for n in config["available_node_types"].values()):
        found = "is not given: Ray's own role may not read the parameter that names the image of workers"
        problems.append(Problem("IamInstanceProfile of the head", found, aws.PREPARE))
    return problems + _network(config, session)


def _network(config: Mapped, session: Any) -> list[Problem]:
    """Firewall and file system: only SSH from outside, and a way from every zone of the nodes to their files."""
    try:
        subnets = aws.subnets_of_nodes(config, session)
    except BadInput as error:
        return error.problems
    problems: list[Problem] = []
    vpc = subnets[0]["VpcId"]
    name = aws.firewall_name(config)
    groups = aws.firewalls(session.client("ec2"), name, vpc)
    if not groups:
        problems.append(Problem("provider.security_group", f"{name} is not there in {vpc}", aws.PREPARE))
    for what in (what for group in groups for what in aws.open_to_all(group)):
        fix = f"remove the rule from {name}; only SSH (22) needs to be open"
        problems.append(Problem("provider.security_group", f"{name} lets the internet in on {what}", fix))
    system = file_system_of(config)
    if system is not None and UNFILLED not in system:
        problems += _file_system(system, subnets, {g["GroupId"] for g in groups}, session)
    return problems


def _file_system(system: str, subnets: list[Mapped], groups: set[str], session: Any) -> list[Problem]:
    problems: list[Problem] = []
    efs = session.client("efs")
    with aws.asked(f"file system {system}", f"{aws.PREPARE}, and prints its id", problems):
        targets = efs.describe_mount_targets(FileSystemId=system)["MountTargets"]
        reached = {
            t["AvailabilityZoneName"]
            for t in targets
            if groups
            & set(efs.describe_mount_target_security_groups(MountTargetId=t["MountTargetId"])["SecurityGroups"])
        }
        missing = sorted({s["AvailabilityZone"] for s in subnets} - reached)
        if missing:
            found = f"nodes in {', '.join(missing)} cannot reach it (NFS, port {NFS_PORT})"
            problems.append(Problem(f"file system {system}", found, "`python -m harness.cluster prepare` again"))
    return problems
