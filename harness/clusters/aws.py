"""What AWS says of a cluster's file: account, region, images, instance types, quotas, role, firewall, file system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.errors import BadInput, Problem, nearest

SSM = "resolve:ssm:"
QUOTAS = {
    ("gpu", False): "L-DB2E81BA",
    ("gpu", True): "L-3819A6DF",
    ("p", False): "L-417A185B",
    ("p", True): "L-7212CCBC",
    ("standard", False): "L-1216C47A",
    ("standard", True): "L-34B43A08",
}
"""Quotas of EC2 in vCPUs by family of instance types and by spot or not: G and VT, P, all usual ones."""
PREPARE = "`python -m harness.cluster prepare` makes it"
Mapped = Mapping[str, Any]


def session(region: str) -> Any:
    """A session of boto3 in a region. Raises BadInput without boto3, for an unknown region and without credentials."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        fix = "uv sync --frozen --extra cluster"
        raise BadInput(Problem("boto3", "is not installed; Ray and this command talk to AWS with it", fix)) from error
    found = boto3.session.Session(region_name=region)
    regions = found.get_available_regions("ec2")
    if region not in regions:
        raise BadInput(Problem("provider.region", f"{region!r} is no region of AWS", nearest(region, regions)))
    try:
        found.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        fix = "`aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise BadInput(Problem("credentials", f"AWS knows nobody by them: {said(error)}", fix)) from error
    return found


def said(error: Exception) -> str:
    """What AWS says, in one line, without the name of the call."""
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        return " ".join(str(error).split())
    return f"{response['Error'].get('Code', '')}: {' '.join(response['Error'].get('Message', '').split())}"


def code_of(error: Exception) -> str:
    """AWS's own name of what went wrong; empty for errors that it did not answer."""
    response = getattr(error, "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, Mapping) else ""


@contextmanager
def asked(where: str, fix: str, problems: list[Problem]) -> Iterator[None]:
    """Turns what AWS refuses within into a problem."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        problems.append(Problem(where, said(error), fix))


def problems_of_nodes(config: Mapped, aws: Any) -> list[Problem]:
    """Images, instance types and their quotas, for every node type."""
    problems: list[Problem] = []
    vcpus: dict[str, int] = {}
    for name, node in config["available_node_types"].items():
        where = f"available_node_types.{name}"
        launched = node.get("node_config") or {}
        kind = launched.get("InstanceType", "")
        with asked(f"{where}.InstanceType", "name a type that this region has, g5.2xlarge for instance", problems):
            machine = aws.client("ec2").describe_instance_types(InstanceTypes=[kind])["InstanceTypes"][0]
            vcpus[name] = machine["VCpuInfo"]["DefaultVCpus"]
            problems += _resources(where, node, machine)
            problems += _image(where, launched.get("ImageId", ""), machine, aws)
    return problems + _quotas(config, vcpus, aws)


def _resources(where: str, node: Mapped, machine: Mapped) -> list[Problem]:
    gpus = sum(g["Count"] for g in machine.get("GpuInfo", {}).get("Gpus", []))
    has = {"CPU": machine["VCpuInfo"]["DefaultVCpus"], "GPU": gpus}
    says = {name: int((node.get("resources") or {}).get(name, 0)) for name in has}
    if says == has:
        return []
    text = "{ " + ", ".join(f"{name}: {n}" for name, n in has.items()) + " }"
    found = f"{says['CPU']} CPUs and {says['GPU']} GPUs, but {machine['InstanceType']} has {has['CPU']} and {gpus}"
    return [Problem(f"{where}.resources", found, f"write {text}: plans go by it")]


def _image(where: str, image: str, machine: Mapped, aws: Any) -> list[Problem]:
    where = f"{where}.ImageId"
    problems: list[Problem] = []
    fix = "name an image with glibc 2.28 or newer and a driver for CUDA 13, as the cluster.yaml of `wsss files` does"
    if not image:
        return [Problem(where, "is not given: Ray's own default has glibc 2.27, which torch does not run on", fix)]
    with asked(where, fix, problems):
        if image.startswith(SSM):
            image = aws.client("ssm").get_parameter(Name=image.removeprefix(SSM))["Parameter"]["Value"]
        images = aws.client("ec2").describe_images(ImageIds=[image])["Images"]
        able = machine["ProcessorInfo"]["SupportedArchitectures"]
        if not images:
            problems.append(Problem(where, f"{image} is not there in this region", fix))
        elif images[0]["Architecture"] not in able:
            found = f"{image} is for {images[0]['Architecture']}, {machine['InstanceType']} is {' or '.join(able)}"
            problems.append(Problem(where, found, fix))
        elif images[0].get("Platform") == "windows":
            problems.append(Problem(where, f"{image} is a Windows", fix))
    return problems


def _quotas(config: Mapped, vcpus: Mapping[str, int], aws: Any) -> list[Problem]:
    """Quotas that hold not even one machine of a type, or not as many of one as the file allows."""
    problems: list[Problem] = []
    head, total = config.get("head_node_type"), int(config.get("max_workers", 2))
    for name, each in vcpus.items():
        node = config["available_node_types"][name]
        spot = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        quota = QUOTAS[_family(node["node_config"]["InstanceType"]), spot]
        wanted = 1 if name == head else min(int(node.get("max_workers", 0)), total)
        where = f"available_node_types.{name}"
        with asked(where, "the right servicequotas:GetServiceQuota, or ask who has it", problems):
            answer = aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=quota)
            may = int(answer["Quota"]["Value"])
            if wanted * each > may:
                found = f"{wanted} with {each} vCPUs each, but the account's quota {quota} is {may} vCPUs"
                fix = f"max_workers: {may // each}" if name != head and may >= each else "a smaller InstanceType"
                problems.append(Problem(where, found, f"{fix}, or ask AWS for more (Service Quotas, EC2)"))
    return problems


def _family(instance_type: str) -> str:
    kind = instance_type.lower()
    return "gpu" if kind.startswith(("g", "vt")) else "p" if kind.startswith("p") else "standard"


def subnets_of_nodes(config: Mapped, aws: Any) -> list[Mapped]:
    """Where Ray starts machines: public subnets of one VPC, that of the last zone by name or of the zones named."""
    zones = [z.strip() for z in (config["provider"].get("availability_zone") or "").split(",") if z.strip()]
    public = [
        s
        for s in aws.client("ec2").describe_subnets()["Subnets"]
        if s["State"] == "available" and s["MapPublicIpOnLaunch"] and (not zones or s["AvailabilityZone"] in zones)
    ]
    if not public:
        found = "no subnet gives machines a public address" + (f" in {', '.join(zones)}" if zones else "")
        raise BadInput(Problem("provider", found, "`aws ec2 create-default-vpc`"))
    by_zone = sorted(public, key=lambda s: s["AvailabilityZone"], reverse=True)
    first = min(by_zone, key=lambda s: zones.index(s["AvailabilityZone"])) if zones else by_zone[0]
    return [s for s in by_zone if s["VpcId"] == first["VpcId"]]


def firewall_name(config: Mapped) -> str:
    """The security group that the nodes of this file are in: by its own words, or as Ray names it."""
    named = config["provider"].get("security_group") or {}
    return str(named.get("GroupName", f"ray-autoscaler-{config['cluster_name']}"))


def firewalls(ec2: Any, name: str, vpc: str | None = None) -> list[Mapped]:
    """The security groups of this name, in one VPC or in all."""
    filters = [{"Name": "group-name", "Values": [name]}]
    filters += [{"Name": "vpc-id", "Values": [vpc]}] if vpc is not None else []
    found: list[Mapped] = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return found


def open_to_all(group: Mapped) -> list[str]:
    """What a firewall lets in from anywhere but SSH, in words."""
    found = []
    for rule in group["IpPermissions"]:
        anywhere = any(r["CidrIp"] == "0.0.0.0/0" for r in rule.get("IpRanges", []))
        anywhere |= any(r["CidrIpv6"] == "::/0" for r in rule.get("Ipv6Ranges", []))
        ports = (rule.get("FromPort"), rule.get("ToPort"))
        if anywhere and (rule["IpProtocol"] != "tcp" or ports != (22, 22)):
            found.append(
                "all ports" if rule["IpProtocol"] == "-1" else f"{rule['IpProtocol']} {ports[0]} to {ports[1]}"
            )
    return found
