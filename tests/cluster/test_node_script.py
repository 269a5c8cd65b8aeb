"""The steps of `docs/cluster/node.sh`, run with stand-ins of what only a machine of the cloud has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = {
    "sudo": 'echo "sudo $*" >> "$LOG"; case $1 in test) exit 1 ;; tee) cat >> "$LOG" ;; esac',
    "curl": 'case "$*" in *api/token) echo KEY ;; *KEY*placement/region) echo eu-west-1 ;; *) exit 22 ;; esac',
    "mountpoint": "exit 1",
    "mount.nfs4": "",
    "uv": 'echo "uv $*" >> "$LOG"; [ ! -f "$HOME/broken-uv" ]',
}


@pytest.fixture
def node(tmp_path):
    """A home with the project's scripts in it, and stand-ins first in the path."""
    home, bin_ = tmp_path / "home", tmp_path / "bin"
    (home / "project/docs/cluster").mkdir(parents=True)
    shutil.copy(ROOT / "docs/cluster/node.sh", home / "project/docs/cluster")
    (home / "vendor").write_text("Somebody Else")
    bin_.mkdir()
    for name, body in STAND_INS.items():
        write(bin_ / name, body)
    return home


def write(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def run(home: Path, *words: str, autoscaler: str = "") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    log = home / "log"
    log.unlink(missing_ok=True)
    env = {
        "HOME": str(home),
        "PATH": f"{home.parent / 'bin'}:/usr/bin:/bin",
        "LOG": str(log),
        "VENDOR": str(home / "vendor"),
        "RAY_enable_autoscaler_v2": autoscaler,
    }
    script = home / "project/docs/cluster/node.sh"
    done = subprocess.run(["bash", script, *words], env=env, capture_output=True, text=True)
    return done, log.read_text().splitlines() if log.exists() else []


def test_the_shared_folder_is_mounted_now_and_at_boot(node):
    done, log = run(node, "shared", "fs-0a")
    assert done.returncode == 0, done.stderr
    (entry,) = [line for line in log if line.startswith("fs-0a.")]
    assert entry.startswith("fs-0a.efs.eu-west-1.amazonaws.com:/ /shared nfs4 nfsvers=4.1,")
    assert entry.endswith("_netdev 0 0")
    assert "sudo mount /shared" in log
    own = f"-o {os.getuid()} -g {os.getgid()}"
    assert log[-1] == f"sudo install -d {own} /shared/results /shared/data"
    assert not [line for line in log if "apt-get" in line], "mount.nfs4 is there"


def test_a_file_system_that_nobody_filled_in_is_said(node):
    done, log = run(node, "shared", "fs-FILL-IN")
    assert done.returncode == 1
    assert "wsss cluster prepare" in done.stderr
    assert not log


def test_a_missing_nfs_client_is_installed_once_apt_is_free(node):
    (node.parent / "bin/mount.nfs4").unlink()
    done, log = run(node, "shared", "fs-0a")
    assert done.returncode == 0, done.stderr
    assert "sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq nfs-common" in log


def test_the_environment_is_that_of_the_lock(node):
    done, log = run(node, "environment")
    assert done.returncode == 0, done.stderr
    assert log == ["uv --version", "uv sync --frozen --extra cluster"]


def test_without_uv_pip_installs_it_below_the_home_also_where_apt_manages_python(node):
    (node / "broken-uv").touch()
    body = 'echo "$PIP_BREAK_SYSTEM_PACKAGES python3 $*" >> "$LOG"'
    write(node.parent / "bin/python3", body)
    write(node / ".local/bin/uv", 'echo "own uv $*" >> "$LOG"')
    done, log = run(node, "environment")
    assert done.returncode == 0, done.stderr
    assert log[-2:] == ["1 python3 -m pip install --user --quiet uv", "own uv sync --frozen --extra cluster"]


def test_logins_find_the_commands_and_the_mode_once(node):
    (node / ".bashrc").write_text("# mine\n")
    run(node, "shell")
    done, _ = run(node, "shell")
    assert done.returncode == 0, done.stderr
    lines = (node / ".bashrc").read_text().splitlines()
    path = f"export PATH={node}/project/.venv/bin:$HOME/.local/bin:$PATH"
    assert lines == ["# mine", path, "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"]


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (("head",), "--head --port=6379"),
        (("worker", "10.0.0.7"), "--address=10.0.0.7:6379"),
    ],
)
def test_ray_starts_with_the_token_and_not_without(node, words, start):
    write(node / "project/.venv/bin/ray", 'echo "$RAY_AUTH_MODE ray $*" >> "$LOG"')
    done, log = run(node, *words)
    assert done.returncode == 1
    assert "wsss cluster token" in done.stderr
    assert not log
    token = node / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("a" * 64)
    token.chmod(0o644)
    done, log = run(node, *words)
    assert done.returncode == 0, done.stderr
    assert log == ["token ray stop", f"token ray start {start.format(home=node)} --disable-usage-stats"]
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("provider", "autoscaler"), [("local", "0"), ("aws", "1")])
def test_a_head_of_one_s_own_machines_has_the_autoscaler_that_starts_them_all(node, provider, autoscaler):
    (node / ".ray").mkdir()
    (node / ".ray/auth_token").write_text("a" * 64)
    write(node / "project/.venv/bin/ray", 'echo "$RAY_enable_autoscaler_v2 $*" >> "$LOG"')
    file = node / "ray_bootstrap_config.yaml"
    file.write_text(json.dumps({"cluster_name": "local", "provider": {"type": provider, "head_ip": "10.0.0.1"}}))
    _, log = run(node, "head", autoscaler="1")
    assert log[-1] == f"{autoscaler} start --head --port=6379 --autoscaling-config={file} --disable-usage-stats"


def test_a_spot_machine_tells_its_runs_once_aws_says_that_it_goes(node):
    asked = node / "asked"
    answers = """case "$*" in *api/token) echo KEY ;; *instance-life-cycle) echo {life} ;;
*spot/instance-action) echo x >> {asked}; [ "$(wc -l < {asked})" -ge 3 ] || exit 22 ;; *) exit 22 ;; esac"""
    (node / ".ray").mkdir()
    write(node.parent / "bin/curl", answers.format(life="on-demand", asked=asked))
    assert run(node, "notice")[0].returncode == 0
    assert not (node / ".ray/leaving").exists()
    write(node.parent / "bin/curl", answers.format(life="spot", asked=asked))
    write(node.parent / "bin/sleep", "exit 0")
    assert run(node, "notice")[0].returncode == 0
    assert (node / ".ray/leaving").exists()
    assert asked.read_text().count("x") == 3


def test_ray_is_started_again_where_its_first_start_takes_too_long(node):
    (node / ".ray").mkdir()
    (node / ".ray/auth_token").write_text("a" * 64)
    body = 'echo "$1" >> "$LOG"; [ "$1" = stop ] || [ "$(grep -c start "$LOG")" -ge {at} ]'
    write(node / "project/.venv/bin/ray", body.format(at=3))
    done, log = run(node, "head")
    assert done.returncode == 0, done.stderr
    assert log == ["stop", "start"] * 3
    write(node / "project/.venv/bin/ray", body.format(at=4))
    done, log = run(node, "head")
    assert done.returncode == 1
    assert log == ["stop", "start"] * 3
    assert "did not start here in three tries" in done.stderr


def test_unknown_steps_are_explained(node):
    done, _ = run(node, "sharde")
    assert done.returncode == 2
    assert "node.sh environment" in done.stdout
    assert run(node, "worker")[0].returncode != 0
