"""`docs/cluster/slurm.sh` with SLURM's variables and stand-ins of its commands."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs/cluster/slurm.sh"
STAND_INS = {
    "bin/scontrol": 'printf "n1\\nn2\\nn3\\n"',
    "bin/srun": """while [ "${1#--}" != "$1" ]; do case $1 in --nodelist=*) on=${1#*=} ;; esac; shift; done
case $1 in hostname) echo "127.0.0.1 10.9.9.9" ;; *) ON=$on exec "$@" ;; esac""",
    ".venv/bin/ray": """T=$RAY_AUTH_TOKEN_PATH
echo "$ON ray $*, token $(stat -c %a "$T") $(wc -c < "$T")" >> "$LOG"; exec sleep 60""",
    # As a sweep it waits for all nodes.
    ".venv/bin/python": """for i in {1..600}; do [ "$(grep -c ' ray start ' "$LOG")" = 2 ] && break; sleep 0.1; done
echo "python $*" >> "$LOG"; trap 'echo told >> "$LOG"; exit 130' TERM
if [ -n "${LONG:-}" ]; then touch began; sleep 20 & wait; fi; exit "${CODE:-0}" """,
}


@pytest.fixture
def listening():
    """A port of the script's range at which something answers, as a head does."""
    for port in range(20000, 30000):
        with socket.socket() as head:
            try:
                head.bind(("127.0.0.1", port))
            except OSError:
                continue
            head.listen()
            yield port
            return


@pytest.fixture
def job(tmp_path, listening):
    """A folder to submit from, and the environment of its job on three nodes."""
    for name, body in STAND_INS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    return tmp_path, {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LOG": str(tmp_path / "log"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": str(7_000_000 + listening - 20000),
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "2",
    }


def submitted(job, *words: str, **more: str) -> subprocess.Popen[str]:
    folder, env = job
    command = ["bash", str(SCRIPT), *words]
    return subprocess.Popen(command, cwd=folder, env=env | more, text=True, stderr=subprocess.PIPE)


def ended(script: subprocess.Popen[str], code: int) -> None:
    _, said = script.communicate(timeout=60)
    assert script.returncode == code, said


def test_head_workers_and_sweep_start_with_what_the_job_has_and_nothing_stays(job, listening):
    folder, env = job
    ended(submitted(job, "methods=cam", "store=/shared/results"), 0)
    log = sorted((folder / "log").read_text().splitlines())
    have = "--num-cpus=8 --num-gpus=2 --disable-usage-stats, token 600 64"
    address = f"127.0.0.1:{listening}"
    place = f"/tmp/ray-{env['SLURM_JOB_ID']}"
    head = f"--head --node-ip-address=127.0.0.1 --port={listening} --temp-dir={place} --include-dashboard=false"
    assert log == [
        f"n1 ray start {head} --block {have}",
        f"n2,n3 ray start --address={address} --block {have}",
        f"python -m harness.sweep address={address} gpus=1 methods=cam store=/shared/results",
    ]
    assert not list((folder / ".ray").iterdir()), "the token of a job ends with it"


def test_its_exit_code_is_that_of_the_sweep_and_gpus_may_be_said(job):
    ended(submitted(job, "gpus=0.5", CODE="1"), 1)
    assert "address=127.0.0.1" in (said := (job[0] / "log").read_text())
    assert "gpus=1" not in said
    (job[0] / "log").unlink()
    ended(submitted(job, SLURM_GPUS_ON_NODE="0"), 0)
    assert "gpus=0\n" in (job[0] / "log").read_text()


def test_the_signal_before_the_time_is_up_reaches_the_sweep(job):
    script = submitted(job, LONG="1")
    until = time.monotonic() + 30
    while not (job[0] / "began").exists() and time.monotonic() < until:
        time.sleep(0.05)
    script.send_signal(signal.SIGTERM)
    ended(script, 130)
    assert "told" in (job[0] / "log").read_text()


def test_a_folder_without_the_environment_is_said(job):
    (job[0] / ".venv/bin/ray").unlink()
    script = submitted(job)
    _, said = script.communicate(timeout=30)
    assert script.returncode == 2
    assert "uv sync --frozen --extra cluster" in said
