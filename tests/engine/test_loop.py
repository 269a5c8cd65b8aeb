"""The loop with a toy method: schedules, groups, checkpoints, non-finite losses."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from harness.api.method import Batch, Method, OptimizerPlan, StepOutput
from harness.engine import checkpoint, loop
from harness.engine.checkpoint import keep_best
from harness.engine.loop import LoopConfig, train
from harness.engine.phases import Phases, step_overhead
from harness.engine.session import LocalSession, Pruned
from harness.errors import NonFiniteLoss, StoreError
from harness.tuning.faults import BUG, classify


class Toy(Method):
    """Fits one weight to the mean of random views; keeps a running mean as its bank."""

    def __init__(self, total, nan_at=None, clip=None):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))
        self.idle = nn.Parameter(torch.ones(2))
        self.register_buffer("bank", torch.zeros(3))
        self.total, self.nan_at, self.clip = total, nan_at, clip
        self.seen = []

    def transform(self):
        raise AssertionError("not used")

    def step(self, group, progress):
        noise = torch.randn(3)
        self.seen.append((progress.step, noise.clone()))
        x = group.views["x"].mean(0) + 0.01 * noise
        loss = ((self.w - x) ** 2).sum()
        if progress.step == self.nan_at:
            loss = loss * float("nan")
        return StepOutput({"fit": loss, "reg": 0.1 * self.w.abs().sum()}, {"mean": x.detach(), "ids": x[None].detach()})

    stats_concat = frozenset({"ids"})

    def update(self, stats, progress):
        assert stats["ids"].shape[0] == 2
        torch.testing.assert_close(stats["ids"].mean(0), stats["mean"])
        self.bank.lerp_(stats["mean"], 0.1)

    def optimizers(self):
        return [OptimizerPlan(torch.optim.AdamW(self.parameters(), lr=0.1), lambda s: 1 - s / self.total, self.clip)]

    def predict(self, images_B3HW, tags_BC=None, *, want, weights="student"):
        raise AssertionError("not used")


def batch(step, g):
    rng = np.random.default_rng([step, g])
    x = torch.from_numpy(rng.normal(1.0, 0.1, (2, 3)).astype(np.float32))
    return Batch((f"{step}-{g}-0", f"{step}-{g}-1"), {"x": x}, torch.ones(2, 1), None, None)


def run(tmp_path, total=10, crash_at=None, every=None, session=None, evaluate=None, **toy):
    method = Toy(total, **toy)
    steps = []

    def loader(start):
        for step in range(start, total):
            if step == crash_at:
                raise KeyboardInterrupt
            yield [batch(step, 0), batch(step, 1)]

    config = LoopConfig(total=total, seed=5, groups=2, precision="fp32", folder=tmp_path, checkpoint_every=every)
    phases = Phases()
    trained = train(
        method,
        loader,
        config,
        session or LocalSession(),
        phases,
        evaluate=evaluate,
        report_progress=lambda step, losses: steps.append(step),
    )
    return method, trained, phases


def test_losses_are_means_over_groups_and_schedules_apply(tmp_path):
    method, trained, _ = run(tmp_path, total=1)
    (_, name, value), (_, reg, zero) = trained.steps
    assert (name, reg, zero) == ("fit", "reg", 0.0)
    noises = [n for _, n in method.seen]
    expected = np.mean([((batch(0, g).views["x"].mean(0) + 0.01 * noises[g]) ** 2).sum().item() for g in range(2)])
    assert value == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(method.w, torch.full((3,), 0.1), rtol=1e-4, atol=1e-4)  # AdamW's first step is lr
    assert torch.equal(method.idle, torch.ones(2)), "a parameter without gradient must not decay"


def test_logged_values_stand_beside_the_losses_and_are_not_minimised(tmp_path, monkeypatch):
    plain, without, _ = run(tmp_path / "plain")
    step = Toy.step
    logged = {"share": lambda group: group.views["x"].mean()}

    def with_logged(self, group, progress):
        out = step(self, group, progress)
        return StepOutput(out.losses, out.stats, {name: value(group) for name, value in logged.items()})

    monkeypatch.setattr(Toy, "step", with_logged)
    method, trained, _ = run(tmp_path / "logged")
    assert torch.equal(method.w, plain.w)
    assert trained.logged == {"share"}
    assert without.logged == set()
    assert [s for s in trained.steps if s[1] != "share"] == without.steps
    expected = float(sum(batch(3, g).views["x"].mean() for g in (0, 1)) / 2)
    assert {s: v for s, n, v in trained.steps if n == "share"}[3] == pytest.approx(expected, rel=1e-6)
    logged["fit"] = logged["share"]
    with pytest.raises(ValueError, match="fit is the name of a loss and of a logged value"):
        run(tmp_path / "twice")


def test_resume_after_a_crash_gives_equal_bytes(tmp_path):
    whole, steps, _ = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", crash_at=7, every=3)
    resumed, again, _ = run(tmp_path / "b", every=3)
    assert again.resumed_at == 6
    assert again.steps == steps.steps
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_run_with_no_steps_left_still_returns_its_curve(tmp_path):
    method, trained, _ = run(tmp_path, total=4)
    plans = method.optimizers()
    checkpoint.save_training(tmp_path, method, plans, {"step": 4, "losses": trained.steps})
    again, done, _ = run(tmp_path, total=4)
    assert done.resumed_at == 4
    assert done.steps == trained.steps
    assert torch.equal(again.w, method.w)


def flip_a_bit(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer-0.safetensors", "optimizer-0.json", "meta.json",
                                  "digests.json"])  # fmt: skip
def test_one_flipped_bit_takes_the_checkpoint_before(tmp_path, capsys, name):
    """Two are kept; weights, optimiser and meta are as good as what was written, or not used."""
    whole, steps, _ = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", crash_at=7, every=2)
    assert [p.name for p in checkpoint.found_checkpoints(tmp_path / "b")] == ["step-00000004", "step-00000006"]
    flip_a_bit(tmp_path / "b" / "step-00000006" / name, at=-3)
    resumed, again, _ = run(tmp_path / "b", every=2)
    assert again.resumed_at == 4
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"checkpoint {tmp_path}/b/step-00000006 is damaged (")
    assert line.endswith(": the one of step 4 is taken")
    assert again.steps == steps.steps
    assert all(torch.equal(value, resumed.state_dict()[n]) for n, value in whole.state_dict().items())


@pytest.mark.parametrize("damage", ["empty", "half", "without digests"])
def test_without_a_sound_checkpoint_training_starts_anew(tmp_path, capsys, damage):
    method = Toy(4)
    plans = method.optimizers()
    checkpoint.save_training(tmp_path, method, plans, {"step": 2, "losses": []})
    if damage == "without digests":
        (tmp_path / "step-00000002" / "digests.json").unlink()
    else:
        weights = tmp_path / "step-00000002" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: 0 if damage == "empty" else 40])
    assert checkpoint.load_training(tmp_path, method, plans) is None
    assert capsys.readouterr().out.endswith("): training starts anew\n")
    assert not list(tmp_path.iterdir()), "a damaged one is not counted among those that are kept"


def test_all_workers_take_the_checkpoint_that_is_sound_for_each(tmp_path, monkeypatch, capsys):
    """A second worker that cannot read the newest one: the first, which can, takes the one before as well."""
    method = Toy(4)
    plans = method.optimizers()
    for step in (1, 2):
        checkpoint.save_training(tmp_path, method, plans, {"step": step, "losses": []})
    peers = iter([None, "it cannot be read", ""])
    monkeypatch.setattr(checkpoint, "gather_objects", lambda value, session: [value, next(peers)])
    found = checkpoint.load_training(tmp_path, method, plans, LocalSession(rank=0, world_size=2))
    assert found["step"] == 1
    assert "step-00000002 is damaged (it cannot be read)" in capsys.readouterr().out


@contextmanager
def files_of_at_most(size):
    """A disk on which a file cannot grow: writing on fails as on a full one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    method = Toy(4)
    plans = method.optimizers()
    checkpoint.save_training(tmp_path, method, plans, {"step": 1, "losses": []})
    method.bank = torch.zeros(100_000)
    fix = rf"{tmp_path}/step-00000002: .*File too large.*; raise the limit .* and run the same command again"
    with pytest.raises(StoreError, match=fix), files_of_at_most(20_000):
        checkpoint.save_training(tmp_path, method, plans, {"step": 2, "losses": []})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    with pytest.raises(StoreError, match=rf"{tmp_path}/w/x could .*File too large.*; raise"), files_of_at_most(20_000):
        checkpoint.save_weights(tmp_path / "w" / "x", method, {})
    assert list((tmp_path / "w").iterdir()) == []


def test_the_half_checkpoint_of_a_killed_process_is_removed(tmp_path):
    (tmp_path / ".step-00000003.17.tmp").mkdir()
    (tmp_path / ".step-00000003.17.tmp" / "model.safetensors").write_text("half")
    run(tmp_path, total=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nan_at", [0, 3, 9])
def test_a_non_finite_loss_names_step_term_and_batch(tmp_path, nan_at):
    with pytest.raises(NonFiniteLoss, match=rf"step {nan_at}: loss term fit .*{nan_at}-0-0") as caught:
        run(tmp_path, nan_at=nan_at)
    saved = load_file(next(tmp_path.glob("nonfinite-*")))
    assert torch.equal(saved["0.x"], batch(nan_at, 0).views["x"])
    assert f"The batch is saved in {next(tmp_path.glob('nonfinite-*'))};" in str(caught.value)


def test_a_full_disk_does_not_hide_which_loss_failed(tmp_path):
    with files_of_at_most(10), pytest.raises(NonFiniteLoss, match="step 2: loss term fit") as caught:
        run(tmp_path, nan_at=2)
    assert f"The batch is not saved, {tmp_path}/nonfinite-step2-rank0.safetensors could not be" in str(caught.value)
    assert classify(caught.value) == BUG
    assert list(tmp_path.iterdir()) == []


def test_rungs_evaluate_and_report(tmp_path):
    seen = []
    session = LocalSession(rungs=(0.3, 0.5), on_report=lambda reached, value: seen.append((reached, value)) or True)
    run(tmp_path, session=session, evaluate=lambda step: 0.25 + step / 100)
    assert seen == [(0.3, 0.28), (0.5, 0.3)]


def test_a_stop_at_a_rung_passes_through(tmp_path):
    session = LocalSession(rungs=(0.3,), on_report=lambda reached, value: False)
    with pytest.raises(Pruned):
        run(tmp_path, session=session, evaluate=lambda step: 0.1)


def test_clipping_bounds_the_gradient(tmp_path):
    free, _, _ = run(tmp_path / "a", total=3)
    clipped, _, _ = run(tmp_path / "b", total=3, clip=1e-9)
    assert not torch.equal(free.w, clipped.w)


def test_global_generators_are_seeded_by_place_not_history(tmp_path):
    torch.manual_seed(1)
    a, _, _ = run(tmp_path / "a", total=2)
    torch.manual_seed(2)
    torch.randn(100)
    b, _, _ = run(tmp_path / "b", total=2)
    for (_, x), (_, y) in zip(a.seen, b.seen, strict=True):
        assert torch.equal(x, y)
    assert len({tuple(n.tolist()) for _, n in a.seen}) == 4


def test_phases_do_not_overlap():
    seconds = {"data": 1.0, "views": 2.0, "method": 6.0, "engine": 1.0, "score": 5.0}
    assert step_overhead(seconds) == pytest.approx(0.2)
    assert step_overhead({}) == 0.0


def test_inner_phases_take_their_time_from_outer_ones(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("harness.engine.phases.time.perf_counter", lambda: now[0])
    phases = Phases()
    with phases.of("data"):
        now[0] += 2
        with phases.of("views"):
            now[0] += 5
        now[0] += 1
    assert (phases.seconds["data"], phases.seconds["views"]) == (3.0, 5.0)


class Later:
    """As a GPU: values reach the host when their event is waited for, nonsense stands there before."""

    def __init__(self):
        self.unread, self.largest = 0, 0

    def __call__(self, losses):
        host, real = torch.full_like(losses, 1e9), losses.clone()
        self.unread += 1
        self.largest = max(self.largest, self.unread)

        class Event:
            def synchronize(_):
                self.unread -= 1
                host.copy_(real)

        return host, Event()


def test_losses_that_arrive_later_are_the_same_numbers(tmp_path, monkeypatch):
    _, plain, _ = run(tmp_path / "a", every=4)
    later = Later()
    monkeypatch.setattr(loop, "_to_host", later)
    method, trained, _ = run(tmp_path / "b", every=4)
    assert trained.steps == plain.steps
    assert (later.unread, later.largest) == (0, 2), "read one step after they were made, all of them at the end"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", crash_at=6, every=4)
    resumed, again, _ = run(tmp_path / "c", every=4)
    assert again.resumed_at == 4
    assert again.steps == plain.steps, "a checkpoint holds the losses of all steps before it"
    assert torch.equal(resumed.w, method.w)
    for nan_at in (3, 9):
        with pytest.raises(NonFiniteLoss, match=rf"step {nan_at}: loss term fit .*{nan_at}-0-0"):
            run(tmp_path / f"nan{nan_at}", nan_at=nan_at)


def test_a_step_that_is_not_finite_is_never_saved_or_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_to_host", Later())
    told = []
    session = LocalSession(rungs=(0.4,), on_report=lambda *a: told.append(a) or True)
    with pytest.raises(NonFiniteLoss, match="step 3"):
        run(tmp_path / "a", nan_at=3, session=session, evaluate=lambda step: 0.5)
    assert told == []
    with pytest.raises(NonFiniteLoss, match="step 3"):
        run(tmp_path / "b", nan_at=3, every=4)
    assert not list((tmp_path / "b").glob("step-*"))


def test_saving_takes_at_most_a_fiftieth_of_the_time(tmp_path, monkeypatch):
    """Steps of 5 s: the first checkpoint after 30 s; one that takes 3 s is not followed by another for 150 s."""
    now, saves = [0.0], []
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def save(folder, method, plans, meta):
        saves.append((now[0], meta["step"]))
        now[0] += 3.0

    def report_progress(step, losses):
        now[0] += 5.0

    monkeypatch.setattr(loop.checkpoint, "save_training", save)
    config = LoopConfig(total=100, seed=5, groups=2, precision="fp32", folder=tmp_path)
    train(Toy(100), lambda start: ([batch(s, 0), batch(s, 1)] for s in range(start, 100)), config, LocalSession(),
          Phases(), report_progress=report_progress)  # fmt: skip
    assert saves == [(35.0, 7), (193.0, 38), (351.0, 69)]


def test_worse_weights_never_replace_better_ones(tmp_path):
    path, method = tmp_path / "s" / "best.safetensors", Toy(1)

    def rung(objective, step):
        method.w.data.fill_(step)
        keep_best(path, method, objective, step)
        meta = checkpoint.best_meta(path)
        return {name: meta[name] for name in ("objective", "step")}, load_file(path)["w"][0].item()

    assert rung(0.3, 2) == ({"objective": "0.3", "step": "2"}, 2.0)
    assert rung(0.5, 4) == ({"objective": "0.5", "step": "4"}, 4.0)
    assert rung(0.3, 2)[1] == 4.0, "a resumed run passes an earlier rung again"
    assert rung(0.5, 4)[1] == 4.0
    assert rung(0.6, 8)[1] == 8.0
    path.write_bytes(b"half")
    assert rung(0.1, 2) == ({"objective": "0.1", "step": "2"}, 2.0)
    flip_a_bit(path)
    assert checkpoint.best_meta(path) is None
    assert rung(0.05, 1) == ({"objective": "0.05", "step": "1"}, 1.0)
