"""`python -m harness.data`: work on data sets and on what the harness ships with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.cli.data_words import READING, DataCommandWords, dataset_help
from harness.cli.helping import subcommand_help, wants_help
from harness.cli.parsing import Parsed, command_words, parse, split_list, subcommand
from harness.cli.parsing import main as answer
from harness.datasets import DATASETS
from harness.errors import EXIT_DONE, BadInput, Problem, nearest, shown

ABOUT = "Work on data sets and on what the harness ships with."


def _make_backbones(words: DataCommandWords, options: Mapping[str, str]) -> int:
    """Pretrain the tiny backbones and write their files."""
    import time

    import torch

    from harness.datasets.shapes.glyphs import pictures
    from methods.parts.nets.pretrain import pretrain, save
    from methods.parts.nets.shapes_nets import WEIGHTS

    torch.set_num_threads(words.threads)
    folder = WEIGHTS if words.out is None else Path(words.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(Problem("out", f"cannot write to {folder}: {error}", "name another folder")) from error
    for name in split_list(words.names):
        start = time.process_time()
        tensors, metadata = pretrain(name, pictures, seed=words.seed, log=print)
        save(folder / f"{name}.safetensors", tensors, metadata)
        seconds = time.process_time() - start
        right = metadata["accuracy"]
        print(f"{name}: {right} % of fresh pictures right, {seconds:.0f} CPU-seconds, written to {folder}")
    return EXIT_DONE


def _check(words: DataCommandWords, options: Mapping[str, str]) -> int:
    """Report everything that is wrong with a dataset."""
    from harness.datasets.tools.checking import check, survey

    data = words.data
    report = check(survey(data.name, root=data.root, masks=data.masks, classes=data.classes, options=options))
    print(shown(report.text()))
    return report.exit_code


def _opened(words: DataCommandWords, options: Mapping[str, str]) -> Any:
    from harness.datasets import open_dataset

    data = words.data
    return open_dataset(data.name, root=data.root, masks=data.masks, classes=data.classes, options=options)


def _weak_labels(words: DataCommandWords, options: Mapping[str, str]) -> int:
    """Write sparse labels derived from masks."""
    from harness.datasets.tools.write import SHEET, kind_word, write_weak_labels

    kind = kind_word(str(words.kind), words.number)
    opened = _opened(words, options)
    folder = write_weak_labels(opened, kind, Path(str(words.out)), seed=words.seed, split=words.split)
    print(f"{kind} of {words.split} are in {folder}; look at {folder / SHEET}, then add data.weak={words.out}")
    return EXIT_DONE


def _import_cams(words: DataCommandWords, options: Mapping[str, str]) -> int:
    """Convert the CAM folder of another repository."""
    from harness.datasets.tools.fitting_maps import judge_maps
    from harness.datasets.tools.importing import import_cams, lacking

    dataset, out = _opened(words, options), Path(str(words.out))
    ids = [image_id for split in dataset.splits() for image_id in dataset.ids(split)]
    done = import_cams(
        Path(str(words.cams)),
        out,
        ids,
        dataset.num_classes,
        dataset=dataset.name,
        normalise=words.normalise,
        again=words.again,
        judge=partial(judge_maps, dataset),
    )
    print(f"{done.written} files converted into {out}, {done.kept} were there already")
    for line in (lacking("images have none", done.missing), lacking("files are of no image here", done.foreign)):
        print(line, end="\n" if line else "")
    for warning in done.warnings:
        print(f"warning: {warning}")
    return EXIT_DONE


def _import_tags(words: DataCommandWords, options: Mapping[str, str]) -> int:
    """Convert image-level labels to JSON."""
    from harness.datasets.disk.tag_files import read_tags, write_tags
    from harness.datasets.tools.importing import lacking

    dataset, out = _opened(words, options), Path(str(words.out))
    classes = dataset.class_names[int(dataset.has_background) :]
    ids = [image_id for split in dataset.splits() for image_id in dataset.ids(split)]
    tags = read_tags(Path(str(words.tags)), classes, ids, pickles=True)
    try:
        write_tags(out, tags, classes)
    except OSError as error:
        raise BadInput(Problem("out", f"cannot write {out} ({error.strerror})", "name another file")) from error
    print(f"tags of {len(tags)} images are in {out}: add data.tags={out}")
    print(lacking("images have none", [i for i in ids if i not in tags]))
    return EXIT_DONE


SUBCOMMANDS = {
    "check": "read every file of a dataset: all problems at once with their fixes, images by class, fingerprints",
    "weak-labels": "derive points, scribbles, clicks or blocks from masks: PNGs, a manifest, a sheet of ten examples",
    "import-cams": "convert a CAM folder of another repository once, for harness.evaluate cams=; nothing in it runs",
    "import-tags": "convert image-level labels to JSON, for data.tags=; nothing in a pickle is executed",
    "make-backbones": "train the tiny backbones of the embedded dataset again (minutes on one core)",
}
NEEDED = {"weak-labels": ("kind", "out"), "import-cams": ("cams", "out"), "import-tags": ("tags", "out")}
"""Words without which a subcommand cannot start."""
RUN: dict[str, Callable[[DataCommandWords, Mapping[str, str]], int]] = {
    "check": _check,
    "weak-labels": _weak_labels,
    "import-cams": _import_cams,
    "import-tags": _import_tags,
    "make-backbones": _make_backbones,
}


def read(argv: Sequence[str]) -> tuple[str, Parsed]:
    """The subcommand and its words. Raises BadInput with everything that is wrong with them."""
    name, rest = subcommand(argv, "harness.data", SUBCOMMANDS)
    parsed = parse(rest, DataCommandWords, name, collect=True)
    problems = list(parsed.problems)
    known = command_words(DataCommandWords, name)
    for needed in NEEDED.get(name, ()):
        if getattr(parsed.words, needed) is None and needed not in [p.where for p in problems]:
            problems.append(Problem(needed, "not given", f"write {known[needed].metadata['example']}"))
    if name in READING and parsed.words.data.name not in DATASETS:
        data = parsed.words.data.name
        problems.append(Problem("data", f"{data!r} is unknown", nearest(data, DATASETS)))
    if problems:
        raise BadInput(problems)
    return name, parsed


def main(argv: Sequence[str]) -> int:
    """Run a subcommand; returns the exit code (0 done, 1 `check` found errors, 2 bad input, 130 stopped)."""
    return answer(_run, argv)


def _run(argv: list[str]) -> int:
    if wants_help(argv):
        print(subcommand_help("harness.data", DataCommandWords, ABOUT, SUBCOMMANDS, argv))
        if not (named := set(argv) & set(SUBCOMMANDS)) or named & set(READING):
            print("\n".join(["", *dataset_help()]))
        return EXIT_DONE
    name, parsed = read(argv)
    return RUN[name](parsed.words, parsed.options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
