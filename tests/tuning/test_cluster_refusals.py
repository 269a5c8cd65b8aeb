"""A real cluster of two nodes refuses a wrong token within seconds, and a node with another lock file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from harness.errors import BadInput
from harness.tuning.head import check_token
from harness.tuning.nodes import check_nodes, marked

other, store = sys.argv[1:]
small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=small)
try:
    check_token(cluster.address)
    ray.init(address=cluster.address, log_to_driver=False)
    with marked(Path(store)) as home:
        check_nodes(home)
        print("one node is fit")
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000, env_vars={"PYTHONPATH": other})
        try:
            check_nodes(home)
        except BadInput as e:
            print("PROBLEMS", [str(p) for p in e.problems])
    code = "import sys, time; import ray; from harness.tuning.head import check_token; t = time.monotonic()" \\
        "\\ntry: check_token(sys.argv[1])" \\
        "\\nexcept Exception as e: print('REFUSED', time.monotonic() - t < 5, e)"
    for change in ({"RAY_AUTH_TOKEN": "b" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        told = subprocess.run([sys.executable, "-c", code, cluster.address], env=os.environ | change,
                              capture_output=True, text=True)
        print(told.stdout, "STDERR", repr(told.stderr))
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.ray
def test_a_wrong_token_and_a_node_with_another_lock_are_said(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("harness", "methods", "reports", "search_spaces"):
        (other / name).symlink_to(ROOT / name)
    (other / "uv.lock").write_text("another")
    env = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 64,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
    }
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = [sys.executable, str(script), str(other), str(tmp_path / "store")]
    done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "one node is fit" in done.stdout
    (problems,) = [line for line in done.stdout.splitlines() if line.startswith("PROBLEMS")]
    assert problems.count("fix:") == 1, problems
    assert "uv.lock" in problems
    assert "instead of" in problems
    refused = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert len(refused) == 2
    assert all(line.startswith("REFUSED True address: the Ray head at ") for line in refused), refused
    assert "refuses the token of RAY_AUTH_TOKEN" in refused[0]
    assert "refuses no token (RAY_AUTH_MODE is not token)" in refused[1]
    assert done.stdout.count("STDERR ''") == 2, "no line of Ray's own"
