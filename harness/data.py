"""`python -m harness.data`: work on data sets and on what the harness ships with."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cli.data_words import DATA_WORDS, LABEL_WORDS, Command, Word, label_words, usage, whole
from harness.cli.parsing import main as answer
from harness.errors import EXIT_DONE, BadInput, Problem, nearest


def _names(text: str) -> tuple[str, ...]:
    from methods.parts.nets.pretrain import RECIPES

    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in RECIPES]
    if unknown or not names:
        raise ValueError(nearest(unknown[0], RECIPES) if unknown else "known: " + ", ".join(RECIPES))
    return names


def _make_backbones(values: Mapping[str, Any]) -> int:
    """Pretrain the tiny backbones and write their files."""
    import time

    import torch

    from harness.datasets.shapes.glyphs import pictures
    from methods.parts.nets.pretrain import pretrain, save
    from methods.parts.nets.shapes_nets import WEIGHTS

    torch.set_num_threads(values["threads"])
    folder = WEIGHTS if values["out"] is None else Path(values["out"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(Problem("out", f"cannot write to {folder}: {error}", "name another folder")) from error
    for name in values["names"]:
        start = time.process_time()
        tensors, metadata = pretrain(name, pictures, seed=values["seed"], log=print)
        save(folder / f"{name}.safetensors", tensors, metadata)
        seconds = time.process_time() - start
        right = metadata["accuracy"]
        print(f"{name}: {right} % of fresh pictures right, {seconds:.0f} CPU-seconds, written to {folder}")
    return EXIT_DONE


def _check(values: Mapping[str, Any]) -> int:
    """Report everything that is wrong with a dataset."""
    from harness.datasets.tools.checking import check, survey

    found = survey(
        values["data"],
        root=values["data.root"],
        masks=values["data.masks"],
        classes=values["data.classes"],
        options=values["options"],
    )
    report = check(found)
    print(report.text())
    return report.exit_code


def _opened(values: Mapping[str, Any]) -> Any:
    from harness.datasets import open_dataset

    return open_dataset(
        values["data"],
        root=values["data.root"],
        masks=values["data.masks"],
        classes=values["data.classes"],
        options=values["options"],
    )


def _needed(values: Mapping[str, Any], *words: str) -> None:
    missing = [word for word in words if values[word] is None]
    if missing:
        raise BadInput([Problem(w, "not given", f"write {LABEL_WORDS[w].example}") for w in missing])


def _weak_labels(values: Mapping[str, Any]) -> int:
    """Write sparse labels derived from masks."""
    from harness.datasets.tools.write import SHEET, kind_word, write_weak_labels

    _needed(values, "kind", "out")
    kind = kind_word(values["kind"], values["number"])
    folder = write_weak_labels(_opened(values), kind, Path(values["out"]), seed=values["seed"], split=values["split"])
    print(f"{kind} of {values['split']} are in {folder}; look at {folder / SHEET}, then add data.weak={values['out']}")
    return EXIT_DONE


def _import_cams(values: Mapping[str, Any]) -> int:
    """Convert the CAM folder of another repository."""
    from harness.datasets.tools.importing import import_cams, lacking

    _needed(values, "cams", "out")
    dataset, out = _opened(values), Path(values["out"])
    ids = [image_id for split in dataset.splits() for image_id in dataset.ids(split)]
    done = import_cams(
        Path(values["cams"]),
        out,
        ids,
        dataset.num_classes,
        dataset=dataset.name,
        normalise=values["normalise"],
        again=values["again"],
    )
    print(f"{done.written} files converted into {out}, {done.kept} were there already")
    for line in (lacking("images have none", done.missing), lacking("files are of no image here", done.foreign)):
        print(line, end="\n" if line else "")
    return EXIT_DONE


def _import_tags(values: Mapping[str, Any]) -> int:
    """Convert image-level labels to JSON."""
    from harness.datasets.disk.tag_files import read_tags, write_tags
    from harness.datasets.tools.importing import lacking

    _needed(values, "tags", "out")
    dataset, out = _opened(values), Path(values["out"])
    classes = dataset.class_names[int(dataset.has_background) :]
    ids = [image_id for split in dataset.splits() for image_id in dataset.ids(split)]
    tags = read_tags(Path(values["tags"]), classes, ids, pickles=True)
    try:
        write_tags(out, tags, classes)
    except OSError as error:
        raise BadInput(Problem("out", f"cannot write {out} ({error.strerror})", "name another file")) from error
    print(f"tags of {len(tags)} images are in {out}: add data.tags={out}")
    print(lacking("images have none", [i for i in ids if i not in tags]))
    return EXIT_DONE


COMMANDS: dict[str, Command] = {
    "check": Command(
        "read every file of a dataset: all problems at once with their fixes, images by class, fingerprints",
        DATA_WORDS,
        _check,
        options=True,
    ),
    "weak-labels": Command(
        "derive points, scribbles, clicks or blocks from masks: PNGs, a manifest, a contact sheet of ten examples",
        label_words("kind", "number", "seed", "split", "out"),
        _weak_labels,
        options=True,
    ),
    "import-cams": Command(
        "convert another repository's CAM folder once, for harness.evaluate cams=; nothing in it is executed",
        label_words("cams", "out", "normalise", "again"),
        _import_cams,
        options=True,
    ),
    "import-tags": Command(
        "convert image-level labels to JSON, for data.tags=; nothing in a pickle is executed",
        label_words("tags", "out"),
        _import_tags,
        options=True,
    ),
    "make-backbones": Command(
        "train the tiny backbones of the embedded dataset again (minutes on one core)",
        {
            "names": Word(_names, ("shapes_cnn", "shapes_vit"), "which, with commas", "names=shapes_vit"),
            "out": Word(str, None, "folder that gets the files; default: the package's own", "out=weights"),
            "seed": Word(whole(0), 0, "random seed", "seed=1"),
            "threads": Word(whole(1), 1, "CPU threads", "threads=2"),
        },
        _make_backbones,
    ),
}


def parse(arguments: Sequence[str]) -> tuple[Command, dict[str, Any]]:
    """The subcommand and the values of its words. Raises BadInput with everything that is wrong."""
    if not arguments or arguments[0] not in COMMANDS:
        found = f"unknown subcommand {arguments[0]!r}" if arguments else "no subcommand given"
        fix = nearest(arguments[0] if arguments else "", COMMANDS)
        raise BadInput(Problem("python -m harness.data", found, fix))
    command = COMMANDS[arguments[0]]
    values = {word: entry.default for word, entry in command.words.items()}
    options: dict[str, str] = {}
    problems = []
    for argument in arguments[1:]:
        word, equals, text = argument.partition("=")
        word = "data" if word == "data.name" and "data" in command.words else word
        section, _, option = word.partition(".")
        if word not in command.words and command.options and section == "data" and option:
            options[option] = text
        elif word not in command.words:
            problems.append(Problem(word, f"{arguments[0]} knows no such word", nearest(word, command.words)))
        elif not equals or not text:
            problems.append(Problem(word, "no value given", f"write {command.words[word].example}"))
        else:
            try:
                values[word] = command.words[word].read(text)
            except ValueError as error:
                fix = f"write {command.words[word].example}"
                problems.append(Problem(word, f"bad value {text!r}: {error}", fix))
    if problems:
        raise BadInput(problems)
    return command, {**values, "options": options} if command.options else values


def main(arguments: Sequence[str]) -> int:
    """Run a subcommand; returns the exit code (0 done, 1 `check` found errors, 2 bad input, 130 stopped)."""
    return answer(_run, arguments)


def _run(arguments: list[str]) -> int:
    if {"--help", "-h", "help"} & set(arguments):
        print(usage(COMMANDS, next((a for a in arguments if a in COMMANDS), None)))
        return EXIT_DONE
    command, values = parse(arguments)
    return command.run(values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
