import dataclasses

import pytest

from harness.cli.parsing import command_words, help_text, main, parse, split_list
from harness.cli.run_words import Words
from harness.errors import BadInput

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
    ("text", "value"), [("on", True), ("off", False), ("true", True), ("False", False), ("yes", True), ("0", False)]
)
def test_switches(text, value):
    assert parse([f"ray={text}"], Words, "sweep").words.ray is value


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
