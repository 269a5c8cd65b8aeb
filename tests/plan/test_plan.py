"""From words to keys: what is part of a run's identity, what is not, and what a plan holds."""

import dataclasses
from pathlib import Path

import pytest

from harness.api.registry import registry
from harness.api.spec import resolve
from harness.cli.parsing import parse, parse_rows
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan.ablations import overrides
from harness.plan.config import RunConfig, content_key
from harness.plan.inputs import unread_knobs
from harness.plan.knobs import knob_from_text, preset_knobs, typed_knobs
from harness.plan.plan import Plan, make_plan
from harness.plan.versions import versions

SMALL = ["data.n_train=64", "data.n_val=8", "data.n_test=8"]


def plan(*words: str, single: bool = False) -> Plan:
    command = "train" if single else "sweep"
    parsed = parse([*SMALL, *words], Words, command, registry().names(), collect=True)
    return make_plan(parsed, single=single)


def key(*words: str) -> str:
    made = plan(*words)
    return made.resolve(made.studies[0].study, {}, made.words.seed).key


@pytest.fixture(scope="module")
def base() -> str:
    return key("methods=cam")


@pytest.mark.parametrize(
    "words",
    [
        ["trials=7"],
        ["seeds=5"],
        ["search=rules"],
        ["store=elsewhere"],
        ["threads=2"],
        ["loaders=2"],
        ["keep=none"],
        ["mlflow=off"],
        ["ray=off"],
        ["checkpoint_every=5"],
        ["protocol=fixed"],
        ["protocol=oracle"],
        ["retry=failed"],
        ["batch=16", "group=16", "workers=1"],
    ],
)
def test_words_that_are_no_part_of_a_key(base, words):
    assert key("methods=cam", *words) == base


@pytest.mark.parametrize(
    "words",
    [
        ["seed=1"],
        ["cam.w_seg=.25"],
        ["iterations=3"],
        ["fidelity=.5"],
        ["crop=64"],
        ["batch=8"],
        ["group=8"],
        ["precision=bf16"],
        ["data.n_train=12"],
        ["data.tag_noise=.1"],
        ["data.tune=carve"],
        ["tier=lab"],
        ["scales=1,2"],
    ],
)
def test_words_that_are_part_of_a_key(base, words):
    given = [w for w in SMALL if w.split("=")[0] not in {x.split("=")[0] for x in words}]
    made = make_plan(parse(["methods=cam", *given, *words], Words, "sweep", registry().names()))
    assert made.resolve(made.studies[0].study, {}, made.words.seed).key != base


def test_a_raised_version_makes_another_key():
    run = plan("methods=cam").studies[0].run
    one = {"train_fingerprint": "t", "weights_digest": "w"}
    used = versions(run.chosen.spec)
    assert {"loop", "scoring", "fitting", "cam", "methods.parts.par"} <= set(used)
    assert content_key(run, versions=used, **one) == content_key(run, versions=dict(used), **one)
    assert content_key(run, versions={**used, "methods.parts.par": 99}, **one) != content_key(run, versions=used, **one)


def test_a_config_survives_json():
    run = plan("methods=fsr", "scales=1,1.5").studies[0].run
    assert RunConfig.from_dict(run.to_dict()).to_dict() == run.to_dict()
    assert run.scales == (1.0, 1.5)
    assert dataclasses.replace(run, fidelity=0.1).total == round(run.iterations * 0.1)


def test_one_full_per_network_and_masks_for_it_alone():
    made = plan("methods=cam,fsr,full", "labels=tags")
    assert [(s.run.method, s.run.labels) for s in made.studies] == [("cam", "tags"), ("fsr", "tags"), ("full", "masks")]
    alone = plan("methods=full")
    assert alone.studies[0].run.backbone == made.studies[0].run.backbone


def test_all_is_every_registered_method():
    made = plan("methods=all")
    assert {s.run.method for s in made.studies} == {c.name for c in registry().all()}
    assert made.sweep == plan("methods=all").sweep
    assert made.sweep != plan("methods=all", "trials=3").sweep


def test_a_plugin_brings_its_base_and_works_at_its_sizes():
    beside, alone = (study.run for study in plan("methods=toco+fsae").studies)
    assert (beside.method, alone.method) == ("toco+fsae", "toco")
    assert (beside.iterations, beside.crop, beside.batch, beside.decoder) == (80, 80, 16, "deeplabv3plus")
    assert beside.base_knobs == alone.knobs, "trial 0 of the base"
    assert set(beside.knobs) == set(registry().spec("fsae").config.knobs())
    assert key("methods=toco") == plan("methods=toco+fsae").resolve(
        plan("methods=toco+fsae").studies[1].study, {}, alone.seed
    ).key, "finished runs of the base are reused"  # fmt: skip
    assert [s.run.method for s in plan("methods=toco,toco+fsae,cam+fsae").studies] == [
        "toco", "toco+fsae", "cam+fsae", "cam",
    ]  # fmt: skip
    assert [s.run.method for s in plan("method=cam+fsae", single=True).studies] == ["cam+fsae"]


def test_knobs_of_a_plugin_and_of_its_base_are_apart():
    beside, alone = (s.run for s in plan("methods=cam+fsae", "cam.seg_start=0.5", "fsae.p_cutoff=0.9").studies)
    assert (beside.base_knobs["seg_start"], alone.knobs["seg_start"]) == (0.5, 0.5)
    assert (beside.knobs["p_cutoff"], beside.base_knobs.get("p_cutoff")) == (0.9, None)
    assert key("methods=cam+fsae") != key("methods=cam+fsae", "cam.seg_start=0.5"), "the base is part of the key"
    for started, rung in ((["fsae.con_start=0.1"], 0.6), (["fsae.con_start=0.65"], 0.75)):
        study = plan("methods=cam+fsae", "cam.seg_start=0.5", *started).studies[0].study
        assert study.first_rung == pytest.approx(rung), "no run stops before the last loss of either has started"
    with pytest.raises(BadInput, match=r"cam\.lr"):
        plan("methods=cam+fsae", "cam.lr=-1")


def test_pinned_knobs_are_not_searched_and_go_with_their_partner():
    space = plan("methods=fsr", "fsr.mask_low=.25").studies[0].study.space
    assert space is not None
    assert "mask_low" not in space.knobs
    assert "mask_high" not in space.knobs
    assert "mask_ratio" in space.knobs


@pytest.mark.parametrize(
    ("method", "late", "early"),
    [
        ("irn", {"mask_background", "rw_steps", "seg_lr_factor"}, {"lr_factor", "conf_fg", "aff_lr"}),
        ("sipe", {"rw_beta", "rw_steps", "seg_lr_factor"}, {"lr_factor", "w_gsc", "label_factor"}),
        ("cam+brnf", {"rw_power", "rw_steps", "seg_lr_factor"}, {"lr_factor", "w_gui", "kappa", "label_factor"}),
    ],
)
def test_trials_at_smoke_share_the_stages_before_masks(method, late, early):
    """A knob that some stage before masks reads stays; tier lab, and runs that end before masks, search it."""
    space = plan(f"methods={method}").studies[0].study.space
    assert late <= set(space.knobs)
    assert not early & set(space.knobs)
    assert early | late <= set(plan(f"methods={method}", "tier=lab").studies[0].study.space.knobs)
    assert "lr_factor" in plan(f"methods={method}", "until=write-cams").studies[0].study.space.knobs


def test_protocol_fixed_tunes_nothing():
    study = plan("methods=fsr", "protocol=fixed", "trials=9", "seeds=2").studies[0].study
    assert (study.trials, study.seeds, study.budget) == (1, (0, 1), 1)


def test_rungs_lie_behind_the_last_start():
    study = plan("methods=fsr", "trials=8", "fsr.seg_start=.5").studies[0].study
    assert study.first_rung == pytest.approx(0.6)
    assert plan("methods=fsr", "fsr.seg_start=.85").studies[0].study.first_rung == 1.0


def test_a_knob_that_joined_later_changes_no_key_at_its_default():
    """cam.class_token came after results of cam had been stored."""
    with_it = plan("methods=cam").studies[0].run
    assert with_it.knobs["class_token"] is False
    one = {"train_fingerprint": "t", "weights_digest": "w", "versions": {}}
    before = dataclasses.replace(with_it, knobs={k: v for k, v in with_it.knobs.items() if k != "class_token"})
    assert content_key(with_it, **one) == content_key(before, **one)
    assert content_key(with_it.with_knobs({"class_token": True}, 0), **one) != content_key(before, **one)


def test_all_problems_come_at_once():
    with pytest.raises(BadInput) as caught:
        plan("methods=cam,nosuch", "tier=huge", "data=nowhere", "gpus=99", "fidelity=0")
    text = str(caught.value)
    for part in ("nosuch", "tier", "nowhere", "gpus", "fidelity"):
        assert part in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["methods=cam", "fsr.w_seg=.2"], "fsr.w_seg: is for fsr, which methods= does not name"),
        (["methods=cam", "fsr.w_seg=.2"], "fix: add fsr to methods=, or write cam.w_seg, or leave it out"),
        (["methods=full", "fsr.mask_ratio=.2"], "fix: add fsr to methods=, or leave it out"),
        (["methods=cam+fsae", "toco.w_ctc=.2"], "toco.w_ctc: is for toco"),
    ],
)  # fmt: skip
def test_knobs_of_methods_that_are_not_chosen_are_an_error(words, says):
    with pytest.raises(BadInput) as caught:
        plan(*words)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["methods=all", "fsr.w_seg=.2"],
        ["methods=cam+fsae", "cam.w_seg=.2", "fsae.w_con=.5"],
        ["methods=fsr", "fsr.w_seg=.2"],
    ],
)
def test_knobs_of_chosen_methods_are_read(words):
    parsed = parse([*SMALL, *words], Words, "sweep", registry().names())
    assert unread_knobs([parsed], single=False) == []


def test_labels_that_nobody_reads():
    with pytest.raises(BadInput, match="no chosen method reads points"):
        plan("methods=cam", "labels=points")
    made = plan("methods=cam,full", "labels=tags,points")
    assert [s.run.labels for s in made.studies] == ["tags", "masks"]


@pytest.mark.parametrize(
    ("name", "raw"), [("mask_ratio", "x"), ("aggregation_blocks", "1.5"), ("reuse_cam", "maybe"), ("mask_ratio", "nan")]
)
def test_knob_texts_of_the_wrong_type(name, raw):
    with pytest.raises(BadInput, match=name):
        knob_from_text(registry().spec("fsr"), name, raw)


def test_knob_texts():
    spec = registry().spec("fsr")
    assert knob_from_text(spec, "mask_ratio", ".25") == 0.25
    assert knob_from_text(spec, "reuse_cam", "off") is False
    assert knob_from_text(spec, "cam_scales", "1,.5") == [1.0, 0.5]
    assert typed_knobs(spec, {"cam_scales": [1.0, 0.5]}).cam_scales == (1.0, 0.5)


def test_variants_switch_as_a_whole():
    default, released = plan("methods=fsr").studies[0].run, plan("methods=fsr", "variant=released").studies[0].run
    assert default.knobs["reuse_cam"] is True
    assert released.knobs["reuse_cam"] is False
    assert released.knobs["imagenet_normalisation"] is True


def rows_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return f"plan={path}"


def plan_of_file(file: str, *words: str) -> Plan:
    return make_plan(parse_rows([file, *words], Words, "sweep", registry().names(), collect=True))


ROWS = """
data: {name: shapes, n_train: 64, n_val: 8, n_test: 8}
protocol: fixed
seeds: 1
rows:
  - {methods: [cam, full], seeds: 2}
  - {methods: fsr, ablation: fsr.none}
  - {methods: fsr, ablation: both, iterations: 7}
"""


def test_rows_of_a_plan_file_are_one_sweep(tmp_path):
    made = plan_of_file(rows_file(tmp_path, ROWS))
    assert [(p.run.method, p.ablation, p.study.seeds) for p in made.studies] == [
        ("cam", "", (0, 1)),
        ("full", "", (0, 1)),
        ("fsr", "none", (0,)),
        ("fsr", "both", (0,)),
    ]
    assert [p.run.total for p in made.studies][-1] == 7
    assert {p.study.trials for p in made.studies} == {1}
    assert made.studies[2].run.knobs["w_patch"] == 0.0
    assert len({id(p.part.dataset) for p in made.studies}) == 1


def test_a_study_of_a_row_is_the_study_of_its_words_alone(tmp_path):
    rows = plan_of_file(rows_file(tmp_path, ROWS))
    alone = plan("methods=fsr", "ablation=none", "protocol=fixed", "seeds=1")
    assert alone.studies[0].study.id == rows.studies[2].study.id
    keys = {p.resolve(p.planned(alone.studies[0].study.id).study, {}, 0).key for p in (alone, rows)}
    assert len(keys) == 1


def test_the_line_wins_over_rows_and_rows_over_the_file(tmp_path):
    made = plan_of_file(rows_file(tmp_path, ROWS), "seeds=3", "data=shapes", "iterations=9")
    assert {p.study.seeds for p in made.studies} == {(0, 1, 2)}
    assert {p.run.total for p in made.studies} == {9}
    assert len(made.splits.train) == 64


def test_a_knob_beside_rows_is_for_the_rows_that_choose_its_method(tmp_path):
    made = plan_of_file(rows_file(tmp_path, ROWS), "fsr.mask_ratio=0.2")
    assert [p.run.knobs.get("mask_ratio") for p in made.studies] == [None, None, 0.2, 0.2]
    with pytest.raises(BadInput, match=r"toco\.w_ctc: is for toco, which methods= does not name"):
        plan_of_file(rows_file(tmp_path, ROWS), "toco.w_ctc=0.2")
    row = "rows: [{methods: cam, fsr.mask_ratio: 0.2}, {methods: fsr}]"
    with pytest.raises(BadInput, match=r"fsr\.mask_ratio: is for fsr"):
        plan_of_file(rows_file(tmp_path, row))


def test_rows_may_differ_in_data_and_protocol(tmp_path):
    text = """
methods: cam
data.n_val: 8
data.n_test: 8
rows:
  - {data.n_train: 32}
  - {data.n_train: 64}
  - {data.n_train: 64, protocol: fixed}
"""
    made = plan_of_file(rows_file(tmp_path, text))
    assert [len(p.part.splits.train) for p in made.studies] == [32, 64, 64]
    assert [p.study.protocol for p in made.studies] == ["held-out", "held-out", "fixed"]
    assert len({p.study.id for p in made.studies}) == 3
    for p in made.studies:
        payload = made.resolve(p.study, {}, 0)
        assert payload.machine.protocol == p.study.protocol
        assert payload.data.fingerprints == p.part.fingerprints


def test_equal_rows_are_one_study(tmp_path):
    made = plan_of_file(rows_file(tmp_path, "data.n_train: 64\nrows: [{methods: cam}, {methods: cam}]"))
    assert len(made.studies) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rows: [{methods: cam, store: x}]", "row 1 of .* sets store"),
        ("rows: 3", "no list of sets of words"),
        ("rows: []", "no list of sets of words"),
        ("rows: [{methods: cam}, {methods: nosuch, tier: huge}]", "nosuch"),
        ("rows: [{methods: cam, sedes: 2}]", "seeds"),
    ],
)
def test_rows_that_are_wrong_are_named(tmp_path, text, says):
    with pytest.raises(BadInput, match=says):
        plan_of_file(rows_file(tmp_path, text))


def test_a_command_of_one_run_takes_no_rows(tmp_path):
    with pytest.raises(BadInput, match="holds 2 rows"):
        parse([rows_file(tmp_path, "rows: [{method: cam}, {method: fsr}]")], Words, "train", registry().names())


def test_ablations_by_full_and_bare_name():
    full, bare = (plan("methods=cam,fsr", f"ablation={a}") for a in ("fsr.none", "none"))
    assert [s.study.id for s in full.studies] == [s.study.id for s in bare.studies]
    assert [p.ablation for p in full.studies] == ["", "none"]
    space = full.studies[1].study.space
    assert space is not None
    assert "w_class" not in space.knobs
    payload = full.resolve(full.studies[1].study, {}, 0)
    assert (payload.ablation, payload.data.family) == ("none", "shapes")
    two = plan("methods=fsr", "ablation=cer,fsr.blur")
    assert (two.studies[0].ablation, two.studies[0].run.knobs["augmentation"]) == ("cer+blur", "blur")
    pinned = plan("methods=fsr", "ablation=unc_random_10", "fsr.mask_ratio=.2").studies[0].run
    assert (pinned.knobs["mask_ratio"], pinned.knobs["selection"]) == (0.2, "random")


@pytest.mark.parametrize(
    ("ablation", "says"),
    [("fsr.non", "did you mean fsr.none"), ("nonesuch", "is unknown"), ("full.none", "'full' is not chosen")],
)
def test_unknown_ablations(ablation, says):
    with pytest.raises(BadInput, match=says):
        plan("methods=cam,fsr", f"ablation={ablation}")


def test_the_ablation_that_changes_nothing_has_the_key_of_the_method():
    assert key("methods=fsr", "ablation=both") == key("methods=fsr")
    assert key("methods=fsr", "ablation=none") != key("methods=fsr")


@pytest.mark.parametrize("name", registry().names())
def test_every_ablation_is_a_legal_config(name):
    spec = registry().spec(name)
    for variant in spec.variants:
        preset = resolve(spec.preset)("voc", "paper", variant)
        for ablation in spec.ablations:
            typed_knobs(spec, preset_knobs(spec, preset) | overrides(spec, f"{name}.{ablation}"))
