"""Sweeps that get SIGTERM: their runs leave with a checkpoint, no row is written, the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tuning_toys import MemoryHooks, study

from harness.engine.leaving import NOTICE
from harness.errors import StoreError
from harness.tuning.drivers import run_local
from harness.tuning.leaving import leaving_by_sigterm
from harness.tuning.nodes import marked

DRIVER = """
import sys
from tuning_toys import MemoryHooks, study
from harness.tuning.drivers import run_studies

hooks = MemoryHooks(act=sys.argv[2], root=sys.argv[1])
try:
    run_studies([study(protocol="fixed", seeds=(0, 1))], hooks, execute="tuning_toys:execute", store_root=sys.argv[1])
except KeyboardInterrupt:
    print("INTERRUPTED", len(hooks.rows))
else:
    print("DONE", [(row[3], row[5].status) for row in hooks.rows])
"""


def test_in_this_process_a_run_leaves_and_the_sweep_ends_and_goes_on(tmp_path, capsys):
    hooks = MemoryHooks(act="leave once", root=str(tmp_path))
    plan = [study(protocol="fixed", seeds=(0, 1))]

    def terminated(payload, session):
        from tuning_toys import execute

        os.kill(os.getpid(), signal.SIGTERM)
        return execute(payload, session)

    with pytest.raises(KeyboardInterrupt):
        run_local(plan, hooks, terminated, show=True)
    assert "trial 0: told to leave at step 3 of 9" in capsys.readouterr().out
    assert not hooks.rows, "what left has no row"
    assert not NOTICE.told()
    from tuning_toys import execute

    (mark,) = tmp_path.glob("left-*")
    hooks.act = ""
    records = run_local(plan, hooks, execute)
    assert [r.outcome.status for r in records] == ["done"] * 3
    assert mark.name.removeprefix("left-") == records[0].key


@pytest.mark.parametrize("around", [leaving_by_sigterm, marked])
def test_a_store_that_is_gone_hides_no_error(around, tmp_path, monkeypatch):
    def read_only(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system")

    def sweep():
        with around(tmp_path):
            monkeypatch.setattr(Path, "unlink", read_only)
            raise StoreError("runs could not be written: read-only file system")

    with pytest.raises(StoreError, match="could not be written"):
        sweep()


@pytest.mark.ray
@pytest.mark.slow
def test_under_ray_all_runs_leave_within_the_grace_and_the_same_command_goes_on(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, str(script), str(tmp_path)]
    first = [*command, "leave once"]
    pipes = {"env": env, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    driver = subprocess.Popen(first, **pipes)
    until = time.monotonic() + 240
    while not list(tmp_path.glob("stays-*")):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    driver.send_signal(signal.SIGTERM)
    out, err = driver.communicate(timeout=200)
    assert "INTERRUPTED 0" in out, out + err
    assert "told to end: runs write a checkpoint and leave" in err
    left = list(tmp_path.glob("left-*"))
    assert left
    assert out.count("told to leave at step 3 of 9") == len(left) == len(list(tmp_path.glob("stays-*")))
    assert not list(tmp_path.glob("work/.leave-*"))
    again = subprocess.run([*command, ""], capture_output=True, text=True, env=env, timeout=240)
    ran = [json.loads(p.read_text())["key"] for p in tmp_path.glob("ran-*.json")]
    assert len(ran) == len(set(ran)) == 2, again.stdout + again.stderr
