"""Sweeps that are disturbed: started as a user starts them, watched line by line, held against an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import ray_faults
from core_seconds import CoreSeconds
from fault_table import Row, keep

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.files import write_json
from harness.plan.plan import make_plan
from harness.plan.replay import stored_config
from harness.store import Results, digest, load

HERE = Path(__file__).parent
STEPS, EVERY, AT = 12, 4, 6
"""Of a run: steps, steps between checkpoints, and the step at which its fault comes."""
WORDS = (
    "methods=cam data=shapes data.n_train=16 data.n_val=4 data.n_test=4 crop=48 batch=4 group=2 threads=1 seeds=1 "
    f"trials=2 search=rules iterations={STEPS} checkpoint_every={EVERY} gpus=0"
).split()
PLACE = f"training, step {AT} of {STEPS}"
LIMIT_S = 1200.0
AGAIN = r"trial 0: .*, the run starts again from its newest checkpoint"
MACHINE = re.compile(
    r"Traceback|^\[20\d\d-|\(raylet\)|core_worker|\*\*\* |^ +@ +0x|Fatal Python error|Current thread 0x|StackTrace"
)
"""What is for those who work on Ray: no line of it is for a user."""


class Line(str):
    """A line that a sweep printed."""

    at: float


class Sweep:
    """A sweep in a process of its own."""

    def __init__(self, words: list[str], env: Mapping[str, str], command: list[str] | None = None):
        run = command or [sys.executable, str(HERE / "faulty_sweep.py")]
        self.process = subprocess.Popen(
            [*run, *words], env={**os.environ, **env}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.lines: list[Line] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line = Line(text.rstrip("\n"))
            line.at = time.time()
            self.lines.append(line)

    def end(self, code: int | None) -> float:
        """Waits for the end and answers when it was; `code` is what the user's shell gets, None for any."""
        try:
            self.process.wait(LIMIT_S)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        ended = time.time()
        self._reader.join(20)
        assert code is None or self.process.returncode == code, f"rc {self.process.returncode}\n" + self.text()
        return ended

    def signal(self, number: int) -> float:
        """Sends a signal; answers when."""
        self.process.send_signal(number)
        return time.time()

    def text(self) -> str:
        """All that it printed."""
        return "\n".join(self.lines)

    def said(self, pattern: str) -> Line:
        """The first line that matches. Raises AssertionError where none does."""
        found = [line for line in self.lines if re.search(pattern, line)]
        assert found, f"nothing said {pattern!r}:\n{self.text()}"
        return found[0]


def told(sweep: Sweep, pattern: str) -> str:
    """What a user reads: the part of the first matching line that follows the study's name."""
    return sweep.said(pattern).partition("  ")[2].strip() or str(sweep.said(pattern))


def words(changes: Mapping[str, str]) -> list[str]:
    """The words of the sweep, some of them with other values or added."""
    usual = dict(word.split("=", 1) for word in WORDS)
    return [f"{name}={value}" for name, value in {**usual, **changes}.items()]


def until(what: str, true: Callable[[], bool], sweep: Sweep | None = None, limit_s: float = LIMIT_S) -> None:
    """Waits until something is true, as long as a sweep runs."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"{what}: not within {limit_s:.0f} s"
        assert sweep is None or sweep.process.poll() is None, f"the sweep ended before {what}\n{sweep.text()}"
        time.sleep(0.05)


class Bench:
    """One row: a store of its own, a run with a fault in it, and what an undisturbed sweep stored."""

    def __init__(self, folder: Path, whole: Callable[[Mapping[str, str]], Path], table: str, name: str):
        """`whole` answers the store of an undisturbed sweep with these changes of its words."""
        self.folder, self._whole, self.table, self.name = folder, whole, table, name
        self.store, self.trace, self.go = folder / "store", folder / "trace", folder / "go"
        self.trace.mkdir()
        self.faults: dict[str, dict[str, Any]] = {}
        self.changes: dict[str, str] = {}
        self.also = ""
        """What the row says of them."""
        self.sweeps: list[Sweep] = []
        self._began, self._cores = time.monotonic(), CoreSeconds()

    def of(self, also: str, **changes: str) -> None:
        """The row is of a sweep with some other words; before anything else."""
        self.also, self.changes = f", {also}", changes

    @cached_property
    def whole(self) -> Path:
        """The store of an undisturbed sweep of the same words."""
        return self._whole(self.changes)

    @cached_property
    def right(self) -> Results:
        """What it holds."""
        return load(self.whole)

    @cached_property
    def keys(self) -> list[str]:
        """Of its trials; trial 0, which has the preset's values, has the fault."""
        trials = self.right.trials.filter(self.right.trials["role"] == "trial").sort("trial")
        return list(trials["key"])

    def fault(self, what: str, *, step: int = AT, stage: str = "train", times: int = 1, **more: Any) -> None:
        """Trial 0 has this fault, at a step of its training."""
        self.faults = {self.keys[0]: {"what": what, "stage": stage, "step": step, "times": times, **more}}

    def start(self, *more: str, env: Mapping[str, str] = {}, command: list[str] | None = None) -> Sweep:
        """Starts the sweep, by `command` where it is not one of this machine; the same call again goes on."""
        write_json(self.folder / "faults.json", self.faults)
        path = os.pathsep.join([str(HERE.parent), *sys.path])
        own = {ray_faults.FILE: str(self.folder / "faults.json"), ray_faults.TRACE: str(self.trace), "PYTHONPATH": path}
        if not any(word.startswith("mlflow=") for word in more):
            more = (*more, "mlflow=off")
        sweep = Sweep([*words(self.changes), f"store={self.store}", *more], {**own, **env}, command)
        self.sweeps.append(sweep)
        return sweep

    def goes_on(self, *more: str) -> None:
        """The same command again, without the fault, and without Ray where one process can, ends with every row."""
        self.faults = {}
        self.start(*([] if "workers" in self.changes else ["ray=off"]), *more).end(0)

    def hit(self) -> dict[str, Any]:
        """Where and when the fault came. Raises AssertionError where it has not, or not in training."""
        file = self.trace / "hit.json"
        assert file.is_file(), "the fault never came\n" + "\n".join(s.text() for s in self.sweeps)
        hit: dict[str, Any] = json.loads(file.read_text())
        last = [line.split("\t") for line in (self.trace / f"steps-{hit['key']}").read_text().splitlines()]
        assert ["train", str(AT), str(hit["pid"])] in last, "the fault came outside of training"
        return hit

    def wait_for_fault(self, sweep: Sweep) -> dict[str, Any]:
        """Waits until the run with the fault is there."""
        until("the fault comes", (self.trace / "hit.json").exists, sweep)
        return self.hit()

    def lost_steps(self) -> int:
        """Steps of training that were made more than once, in all attempts together."""
        lost = 0
        for file in self.trace.glob("steps-*"):
            steps = [line.split("\t")[1] for line in file.read_text().splitlines() if line.startswith("train\t")]
            lost += len(steps) - len(set(steps))
        return lost

    def record(
        self, fault: str, saw: str, detected_s: float | None, *, most: int = EVERY,
        injected: str = PLACE, equal: bool = True, twice: bool = False, clean: bool = True,
    ) -> None:  # fmt: skip
        """Holds the store against the undisturbed one, then keeps the row.

        `most`: steps that may be lost. `equal`: whether bytes must be equal; where not, sums may round otherwise.
        `twice`: whether a run may have been made, and its row written, twice.
        """
        if clean:
            noise = [line for sweep in self.sweeps for line in sweep.lines if MACHINE.search(line)]
            assert not noise, "not for a user:\n" + "\n".join(noise[:20])
        found = load(self.store)
        closed = found.trials.filter(found.trials["role"] == "trial")["trial"].n_unique()
        trials = int(self.changes.get("trials", len(self.keys)))
        assert closed == trials, f"{closed} of {trials} trials are closed"
        # A run that failed and was tried again has a row of each.
        done = found.runs.filter(found.runs["status"] == "done")["key"].to_list()
        assert twice or len(done) == len(set(done)), "a run has two rows"
        rows_lost = len(set(self.expected(found)) - set(done))
        assert rows_lost == 0, found.runs.select("key", "status", "error_message").rows()
        same = all(digest(found, key) == self.right_digest(found, key) for key in set(done))
        assert same or not equal, "bytes differ"
        steps = self.lost_steps()
        assert steps <= most, f"{steps} steps were lost"
        saw = saw.replace(str(self.store), "STORE")
        took = (round(time.monotonic() - self._began, 1), round(self._cores.stop(), 1))
        keep(self.table, self.name, Row(fault + self.also, injected, detected_s, saw, steps, rows_lost, same, *took))

    def expected(self, found: Results) -> list[str]:
        """Keys that have to be done: those of the undisturbed sweep; where a search learns from what came first, those
        of the trials that say so."""
        if "search" not in self.changes:
            return self.keys
        trials = found.trials
        return trials.filter(trials["status"] == "done")["key"].to_list()

    def right_digest(self, found: Results, key: str) -> str:
        """What an undisturbed run of this key stores: of the undisturbed sweep, or made here from the stored config."""
        if key in set(self.right.runs["key"]):
            return digest(self.right, key)
        run = found.runs.filter(found.runs["key"] == key).row(0, named=True)
        (self.folder / "config.json").write_text(run["config"])
        store = self.whole.with_name("again")
        given = [f"config={self.folder / 'config.json'}", f"seed={run['seed']}", f"store={store}"]
        given += [w for w in words({}) if w.partition("=")[0] in ("threads", "gpus", "checkpoint_every")]
        argv, stored = stored_config([*given, "ray=off"])
        plan = make_plan(parse(argv, Words, "train", registry().names(), collect=True), single=True, stored=stored)
        payload = plan.resolve(plan.studies[0].study, {}, run["seed"])
        assert payload.key == key, "the stored config is of another run"
        assert execute(payload, LocalSession()).status == "done"
        return digest(load(store), key)
