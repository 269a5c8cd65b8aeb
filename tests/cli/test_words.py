import dataclasses
import warnings

import pytest

from harness.api.registry import registry
from harness.cli.helping import help_text
from harness.cli.parsing import command_words, main, parse, split_list
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan.knobs import knob_from_text
from harness.store import StoreWarning

METHODS = ["cam", "fsr"]


def problems(*argv: str, command: str = "sweep") -> str:
    with pytest.raises(BadInput) as caught:
        parse(list(argv), Words, command, METHODS)
    return "\n".join(str(p) for p in caught.value.problems)


def test_words_sections_options_and_knobs_land_where_they_belong():
    parsed = parse(
        ["methods=fsr,cam", "data=folder", "data.n_train=5", "backbone=vit", "trials=3", "fsr.mask_ratio=.3"],
        Words,
        "sweep",
        METHODS,
    )
    assert parsed.words.methods == "fsr,cam"
    assert parsed.words.data.name == "folder"
    assert parsed.words.backbone.name == "vit"
    assert parsed.words.trials == 3
    assert parsed.options == {"n_train": "5"}
    assert parsed.knobs == {"fsr": {"mask_ratio": ".3"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), ("off", False), ("true", True), ("False", False), ("yes", True), ("No", False), ("1", True),
     ("0", False)],
)  # fmt: skip
def test_switches(text, value):
    assert parse([f"ray={text}"], Words, "sweep").words.ray is value
    parsed = parse([f"cam.class_token={text}", "methods=cam"], Words, "sweep", METHODS)
    assert knob_from_text(registry().spec("cam"), "class_token", parsed.knobs["cam"]["class_token"]) is value


@pytest.mark.parametrize("text", ["2", "-1", "01", "1.0", "maybe", "y", "t", "none"])
def test_what_is_neither_on_nor_off_is_refused(text):
    assert f"dry_run: {text!r}: is neither on nor off" in problems(f"dry_run={text}")
    with pytest.raises(BadInput, match="class_token"):
        knob_from_text(registry().spec("cam"), "class_token", text)


@pytest.mark.parametrize(
    "words", [["seed=1", "seed=1"], ["data=voc", "data.name=coco"], ["fsr.w_seg=1", "fsr.w_seg=2"], ["data.n=1"] * 2]
)
def test_a_repeated_word_is_refused(words):
    assert "is given twice" in problems(*words)


def test_values_are_judged_where_words_are_read():
    text = problems("tier=labb", "crop=0", "gpus=-0.5", "loaders=-1", "keep=last,bst", "seed=")
    for part in ("did you mean lab?", "crop: 0 is below 1", "gpus: -0.5 is below 0", "loaders: -1 is below 0",
                 "'bst' is unknown", "seed: no value given"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("raw", ["no", "1e3", "yes", "0x10", "1_000", "~"])
def test_texts_are_taken_literally(raw):
    assert parse([f"store={raw}"], Words, "sweep").words.store == raw


def test_all_problems_come_at_once_with_nearest_words():
    text = problems("methodz=all", "trials=2.5", "fidelity=nan", "ray=maybe", "foo", "seed=1", "seed=2")
    for part in ("did you mean methods", "trials", "not a number", "ray", "'foo'", "seed: is given twice"):
        assert part in text


def test_interpolation_is_refused_so_that_no_environment_leaks():
    assert "interpolation" in problems("store=${oc.env:HOME}")


def test_a_word_of_another_command_is_unknown():
    assert "method" in problems("method=fsr")
    assert parse(["method=fsr"], Words, "train", METHODS).words.method == "fsr"


def test_a_knob_of_no_registered_method_is_unknown():
    assert "fsrr.mask_ratio" in problems("fsrr.mask_ratio=.3")


def test_plan_file_gives_words_and_the_line_wins(tmp_path):
    plan = tmp_path / "p.yaml"
    plan.write_text("methods: [cam, fsr]\ndata:\n  name: folder\ntrials: 4\nray: false\nfsr:\n  mask_ratio: 0.2\n")
    parsed = parse([f"plan={plan}", "trials=7"], Words, "sweep", METHODS)
    assert parsed.words.methods == "cam,fsr"
    assert parsed.words.data.name == "folder"
    assert parsed.words.trials == 7
    assert parsed.words.ray is False
    assert parsed.knobs == {"fsr": {"mask_ratio": "0.2"}}


@pytest.mark.parametrize(
    "text", ["data.n_train: 5\ndata:\n  n_train: 6\n", "seed: 1\nseed: 2\n", "data: voc\ndata.name: coco\n"]
)
def test_a_word_twice_in_a_plan_file_is_refused(text, tmp_path):
    plan = tmp_path / "p.yaml"
    plan.write_text(text)
    assert "twice" in problems(f"plan={plan}") or "duplicate" in problems(f"plan={plan}")


def test_a_word_without_a_value_in_a_plan_file_is_refused(tmp_path):
    plan = tmp_path / "p.yaml"
    plan.write_text("data:\n  root:\n")
    assert "data.root has no value" in problems(f"plan={plan}")


def test_missing_plan_file_is_named(tmp_path):
    assert "does not exist" in problems(f"plan={tmp_path}/none.yaml")


def test_help_names_every_word_with_its_default():
    text = help_text("harness.sweep", Words, "about")
    for name, f in command_words(Words, "sweep").items():
        assert f"{name}=" in text
        if f.default not in (None, dataclasses.MISSING):
            assert str(f.default).lower() in text.lower()


def test_bad_input_is_exit_code_2(capsys):
    def bad(argv):
        parse(["nonsense"], Words, "sweep")
        return 0

    assert main(bad, []) == 2
    assert "nonsense" in capsys.readouterr().err


def test_split_list_drops_blanks():
    assert split_list(" a, b,,c ") == ["a", "b", "c"]
    assert split_list(None) == []


def test_a_command_prints_a_warning_of_the_harness_in_its_words_alone(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert main(lambda argv: 0, []) == 0
    assert warnings.formatwarning(StoreWarning("a\x1b is damaged"), StoreWarning, "f.py", 1) == (
        "warning: a\\x1b is damaged\n"
    )
    assert "f.py:1: UserWarning: other" in warnings.formatwarning(UserWarning("other"), UserWarning, "f.py", 1)
