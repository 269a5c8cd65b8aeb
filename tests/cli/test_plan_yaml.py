"""Plan files as tired people write them: what stands there is what is meant, and what is wrong has its line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli.parsing import parse, parse_rows
from harness.cli.plan_files import PlanFile, read_plan_file
from harness.cli.run_words import Words
from harness.errors import BadInput, Problem

METHODS = ("cam", "fsr")


def plan_of(folder: Path, text: str | bytes) -> Path:
    path = folder / "p.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes) -> tuple[PlanFile, list[Problem]]:
    problems: list[Problem] = []
    return read_plan_file(str(plan_of(folder, text)), problems), problems


def said(folder: Path, text: str | bytes) -> str:
    """The one problem of a file, without its folder."""
    _, (problem,) = read(folder, text)
    assert problem.where == "plan"
    assert problem.fix
    return f"{problem.found} | {problem.fix}".replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("No", "No"), ("on", "on"), ("True", "true"), ("true", "true"), ("1e-3", "1e-3"), (".5", ".5"),
        ("2024-01-01", "2024-01-01"), ("12:30", "12:30"), ("007", "007"), ("0x10", "0x10"), ("1_000", "1_000"),
        ("'null'", "null"), ("'~'", "~"), ("'a: b # c'", "a: b # c"), ("[cam, off, 1e-3]", "cam,off,1e-3"), ("[]", ""),
        ("!!str 12", "12"), ("é", "é"),
    ],
)  # fmt: skip
def test_a_value_is_the_text_that_stands_there(tmp_path, text, value):
    file, problems = read(tmp_path, f"store: {text}\n")
    assert (file.words, problems) == ({"store": value}, [])


def test_words_read_those_texts_as_on_the_line(tmp_path):
    text = (
        "mlflow: off\nray: no\ndry_run: yes\nfidelity: 1e-1\nseed: 007\nflip: no\nfsr:\n  lr: 1e-3\n  mask_floor: on\n"
    )
    parsed = parse([f"plan={plan_of(tmp_path, text)}"], Words, "sweep", METHODS)
    words = parsed.words
    assert (words.mlflow, words.ray, words.dry_run, words.fidelity, words.seed) == ("off", False, True, 0.1, 7)
    assert (words.flip, parsed.knobs) == ("no", {"fsr": {"lr": "1e-3", "mask_floor": "on"}})


TEXT = "methods: cam\ndata.root: \u00fcbung\n"


@pytest.mark.parametrize(
    "data",
    [TEXT.encode(), codecs.BOM_UTF8 + TEXT.encode(), TEXT.encode("utf-16"),
     codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), TEXT.replace("\n", "\r\n").encode(),
     b"%YAML 1.1\n---\n" + TEXT.encode() + b"...\n"],
    ids=["utf-8", "bom", "utf-16", "utf-16-be", "crlf", "directive"],
)  # fmt: skip
def test_editors_save_in_several_ways(tmp_path, data):
    file, problems = read(tmp_path, data)
    assert (file.words, problems) == ({"methods": "cam", "data.root": "übung"}, [])


SAVE = "save it as UTF-8: iconv -f <its encoding> -t UTF-8 p.yaml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:\n\tname: voc\n", "p.yaml line 2, column 1: found character '\\t' that cannot start any token | ind"),
        ("seed: 1\ntier: lab\nseed: 2\n", "seed is given twice in p.yaml: lines 1 and 3 | give it once"),
        ("data.n: 1\ndata:\n  n: 2\n", "data.n is given twice in p.yaml: lines 1 and 3 | give it once"),
        ("data:\n  n: 1\n  n: 2\n", "data.n is given twice in p.yaml: lines 2 and 3 | give it once"),
        ("rows: [{seed: 1}]\nrows: [{seed: 2}]\n", "rows is given twice in p.yaml: lines 1 and 2 | give it once"),
        ("", "p.yaml holds no words but nothing | write key: value lines"),
        ("# only this\n", "p.yaml holds no words but nothing | write key: value lines"),
        ("---\n", "p.yaml holds no words but nothing | write key: value lines"),
        ("methods=cam\n", "p.yaml holds no words but the text 'methods=cam' | write key: value lines"),
        ("- methods: cam\n", "p.yaml holds no words but a list | put the list below a line `rows:`"),
        ("seed:\n", "seed has no value in p.yaml line 1 | give one, or leave the line out"),
        ("tier: lab\nseed: ~\n", "seed has no value in p.yaml line 2 | give one, or leave the line out"),
        ("methods:\n- cam\n-\n", "an item of methods has no value in p.yaml line 3 | give one, or leave the line out"),
        ("methods: [cam, [fsr]]\n", "p.yaml line 1: an item of methods is a list | items are single values"),
        ("methods:\n  - cam: 1\n", "p.yaml line 2: an item of methods is a mapping | items are single values"),
        ("seed: 1\n? [a]\n: 2\n", "p.yaml line 2: a list stands where a word is expected | write `key: value` lines"),
        ("seed: 1\n---\nseed: 2\n", "p.yaml line 2, column 1: but found another document | one document a file"),
        ("data.root: C: \\voc\n", "p.yaml line 1, column 13: mapping values are not allowed here | write"),
        ("backbone: *vit\n", "p.yaml line 1, column 11: found undefined alias 'vit' | write `key: value` lines"),
        ("store: @x\n", "p.yaml line 1, column 8: found character '@' that cannot start any token | write `key:"),
        ("store: [a\n", "p.yaml line 2, column 1: expected ',' or ']', but got '<stream end>' | write"),
        ("seed: 1\nstore: \x1b[2J\n", "p.yaml line 2: the control character U+001B | take it out"),
        ("seed: !!python/name:os x\n", "p.yaml line 1: seed has the tag tag:yaml.org,2002:python/name:os | write"),
        ("seed: !!python/object/apply:os [x]\n", "p.yaml line 1: seed has the tag tag:yaml.org,2002:python/object"),
        ("seed: !mine 1\n", "p.yaml line 1: seed has the tag !mine | write the value without it"),
        ("a: &a {b: *a}\n", "p.yaml line 1: a.b.b.b.b.b.b.b.... nests more than 8 levels | words have two"),
        ("x: &x {<<: *x, seed: 1}\n", "p.yaml line 1: what `<<` takes over has a `<<` of its own | write its words"),
        ("<<: 3\n", "p.yaml line 1: `<<` takes over the text '3' | name the anchor of a mapping"),
        ("rows: {methods: cam}\n", "rows of p.yaml is no list of sets of words: line 1 is a mapping | write - {meth"),
        ("rows:\n  - cam\n", "rows of p.yaml is no list of sets of words: line 2 is the text 'cam' | write - {methods"),
        ("rows:\n", "rows of p.yaml is no list of sets of words: line 1 is nothing | write - {methods: cam}"),
        ("rows: []\n", "rows of p.yaml is no list of sets of words: line 1 is a list | write - {methods: cam}"),
        ("rows:\n- seed: 1\n- seed: 2\n  ray: off\n", "row 2 of p.yaml (line 4) sets ray, which holds for the sweep"),
        (b"seed: 1\nstore: \xe4\n", f"p.yaml line 2: byte 0xe4 is no UTF-8 | {SAVE}"),
        (b"\xff\xfes\x00\n", f"p.yaml line 1: byte 0x0a is no UTF-16 | {SAVE}"),
        ("seed: 1".encode("utf-16-le"), f"p.yaml holds NUL: it is no text, or in UTF-16 without its mark | {SAVE}"),
        (b"#" * (2**20 + 1), "p.yaml has more than 1048576 bytes | is it another file? write `key: value` lines"),
        ("store: " + "[" * 100_000, "p.yaml nests too deeply | write `key: value` lines"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, expected):
    assert said(tmp_path, text).startswith(expected)


def test_rows_that_are_wrong_name_their_own_lines(tmp_path):
    path = plan_of(tmp_path, "tier: labb\nrows:\n- methods: cam\n  crop: 0\n- methods: fsr\n  corp: 96\n")
    with pytest.raises(BadInput) as caught:
        parse_rows([f"plan={path}"], Words, "sweep", METHODS)
    found = [p.where.replace(f"{tmp_path}/", "") for p in caught.value.problems]
    assert found == ["tier (p.yaml line 1)", "crop (p.yaml line 4)", "word 'corp' (p.yaml line 6)"]
    with pytest.raises(BadInput, match=r"^tier: 'labb' is unknown"):
        parse_rows([f"plan={path}", "tier=labb", "crop=96"], Words, "sweep", METHODS)


def test_anchors_share_words_and_what_is_written_out_wins(tmp_path):
    text = "rows:\n- &one {methods: cam, seed: 1}\n- {<<: *one, seed: 2}\n- {<<: [{tier: lab}, *one], tier: smoke}\n"
    file, problems = read(tmp_path, text)
    assert not problems
    assert list(file.rows) == [
        {"methods": "cam", "seed": "1"},
        {"methods": "cam", "seed": "2"},
        {"methods": "cam", "seed": "1", "tier": "smoke"},
    ]


def laughs(levels: int, end: str) -> str:
    lines = ["a0: &a0 {x0: 1, x1: 1, x2: 1, x3: 1, x4: 1, x5: 1, x6: 1, x7: 1, x8: 1, x9: 1}"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} {{{', '.join(f'y{j}: *a{i - 1}' for j in range(10))}}}")
    return "\n".join([*lines, end])


@pytest.mark.parametrize(
    "text",
    [
        laughs(7, ""),
        laughs(3, "rows: [" + "*a2," * 200 + "]"),
        "a: &a [" + "x," * 500 + "]\n" + "".join(f"b{i}: *a\n" for i in range(500)),
        "rows: [" + "{}," * 11000 + "]",
    ],
    ids=["mappings", "rows", "lists", "empty rows"],
)
def test_anchors_that_repeat_without_end_end(tmp_path, text):
    assert "p.yaml holds more than 10000 values with what its anchors repeat | write" in said(tmp_path, text)


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "dangling", "loop", "unreadable"])
def test_what_is_no_file_is_said_at_once(tmp_path, kind, monkeypatch):
    path = tmp_path / "p.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "none.yaml")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "socket":
        import socket

        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.write_text("seed: 1\n")

        def refused(*args: Any, **kwargs: Any) -> int:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "open", refused)
    problems: list[Problem] = []
    assert read_plan_file(str(path), problems) == PlanFile()
    (problem,) = problems
    expected = {"folder": "is a folder, no plain file",
                "pipe": "is a pipe, no plain file", "dangling": "does not exist",
                "socket": "cannot be read", "loop": "cannot be read (Too many levels of symbolic links)",
                "unreadable": "cannot be read (Permission denied)"}  # fmt: skip
    assert expected[kind] in problem.found


LINES = st.text(st.sampled_from("ab:\n \t-[]{},&*!|>'\"%@`#?<~=$\\\x00\x1b\ufeff\x85é0."), max_size=60)


@settings(max_examples=100, deadline=None)
@given(LINES | st.binary(max_size=60))
def test_no_bytes_end_in_a_traceback(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    file, problems = read(folder, content if isinstance(content, bytes) else content.encode())
    assert all(p.found and p.fix for p in problems)
    assert all(isinstance(value, str) for row in (file.words, *file.rows) for value in row.values())
