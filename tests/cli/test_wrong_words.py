"""What every command does with wrong words: rc 2, all problems at once, and before anything slow is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = {
    "harness.sweep": (["methods=fsrr,cam", "tier=smal", "cam.lrr=1", "labels=tag", "trials=0"], "cam.lrr"),
    "harness.sweep methods=cam": (["gpus=4", "data=vocc"], "but this machine has"),
    "harness.train": (["method=fsr", "fsr.mask_ratoi=1", "data=shape"], "did you mean shapes"),
    "harness.evaluate": (["weights=w.pth", "method=fsrr", "data=vocc", "protocol=held"], "did you mean held-out"),
    "harness.evaluate run=abcdef": (["store=/no/such/folder"], "not in the store"),
    "harness.predict": (
        ["weights=w.pth", "method=fsrr", "overlay=off", "target=cams", "scales=9"],
        "images: is not given",
    ),
    "harness.predict run=abcdef": (["images=/tmp", "out=/no/such/out", "store=/no/such/folder"], "not in the store"),
    "harness.data check": (["data=vocc", "again=maybe"], "did you mean voc"),
    "harness.data make-backbones": (["names=shapes_vt", "threads=0"], "did you mean shapes_vit"),
    "harness.store gc": (["keep=bst", "store=/no/such/folder"], "did you mean best"),
    "harness.store export-masks": (["split=tain", "store=/no/such/folder", "threshold=x"], "run: is not given"),
    "harness.sweep methods=fsr": (["gpus=1", "fidelity=2", "data=shapes"], "2.0 is outside (0,1]"),
    "harness.sweep status": (["stor=x"], "did you mean store"),
    "reports.leaderboard": (["per_class=2", "store=/no/such/folder", "weights=both"], "per_class: '2'"),
    "reports.main_results": (["paper=fsrr", "format=pdf", "store=/no/such/folder"], "format: 'pdf' is unknown"),
    "reports.ablations": (["paper=fsr", "table=44", "execute=maybe"], "execute: 'maybe'"),
    "reports.compare": (["a", "target=cams", "store=/no/such/folder"], "1 rows are named, not two"),
    "benchmarks.run": (["suite=stepp", "rounds=0"], "rounds: 0 is below 1"),
}
RUN = (
    "import sys, runpy\n"
    "sys.argv = sys.argv[1:]\n"
    "try:\n"
    "    runpy.run_module(sys.argv[0], run_name='__main__')\n"
    "except SystemExit as e:\n"
    "    slow = [m for m in ('torch', 'ray', 'timm', 'mlflow') if m in sys.modules]\n"
    "    print('rc', e.code, *slow)\n"
)


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_words_are_answered_before_torch_and_ray_are_imported(command: str) -> None:
    words, said = COMMANDS[command]
    done = subprocess.run([sys.executable, "-c", RUN, *command.split(), *words], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["rc 2"], done.stdout + done.stderr
    assert said in done.stderr
    assert done.stderr.count("error: ") == done.stderr.count("    fix: ")
    assert "Traceback" not in done.stderr
