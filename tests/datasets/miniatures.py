"""Miniatures of the field's datasets in their exact layouts: a handful of small pictures each, generated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.api.dataset import Dataset
from harness.datasets.disk.foreign_files import arrays_of, checked_maps
from harness.datasets.io.colours import COLOURS
from harness.datasets.io.image_files import Maps
from harness.datasets.tools.importing import keys_and_maps, sound_maps
from harness.datasets.voc import CLASSES as VOC_CLASSES

SIZE = (24, 32)
"""Height and width of every picture, pixels."""
VOC_TRAIN = tuple(f"2007_{number:06d}" for number in range(1, 5)) + tuple(f"2008_{n:06d}" for n in range(1, 7))
VOC_PLAIN_TRAIN = VOC_TRAIN[:4]
"""Those that VOC itself has masks for; the others are SBD's."""
VOC_VAL = tuple(f"2009_{number:06d}" for number in range(1, 5))
VOC_TEST = ("2008_000900", "2008_000901")
VOC_SIZES = {"train": len(VOC_TRAIN), "val": len(VOC_VAL), "test": len(VOC_TEST)}


def picture(number: int) -> NDArray[np.uint8]:
    """Noise pixels (H,W,3) of picture `number`."""
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def objects(labels: Sequence[int], border: int | None = 255, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A mask with one rectangle a label, side by side on background 0, each with a border of one pixel."""
    mask = np.zeros(size, np.uint8)
    width = size[1] // len(labels)
    for i, label in enumerate(labels):
        rows, columns = slice(3, size[0] - 5), slice(i * width + 1, (i + 1) * width - 1)
        mask[rows, columns] = label if border is None else border
        mask[rows.start + 1 : rows.stop - 1, columns.start + 1 : columns.stop - 1] = label
    return mask


def save_picture(path: Path, number: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number)).save(path, **({"quality": 90} if path.suffix == ".jpg" else {}), **options)


def save_mask(path: Path, mask_HW: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]] | None = COLOURS) -> None:
    """A palette PNG in VOC's colours, or a grey one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask_HW)
    if colours is not None:
        image.putpalette([value for colour in colours for value in colour])
    image.save(path)


def save_list(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def voc_labels(image_id: str) -> tuple[int, ...]:
    """The classes of a picture: training pictures show all twenty between them."""
    if image_id in VOC_TRAIN:
        at = VOC_TRAIN.index(image_id)
        return (2 * at + 1, 2 * at + 2)
    return (VOC_VAL.index(image_id) + 1, 15)


def voc(root: Path) -> Path:
    """`VOCdevkit/VOC2012` with SBD merged in, as ToCo, FSR, BRNF and FSAE print it; returns the folder above."""
    base = root / "VOCdevkit" / "VOC2012"
    for number, image_id in enumerate((*VOC_TRAIN, *VOC_VAL, *VOC_TEST)):
        save_picture(base / f"JPEGImages/{image_id}.jpg", number)
        if image_id in VOC_TEST:
            continue
        labels = voc_labels(image_id)
        own = image_id in VOC_PLAIN_TRAIN or image_id in VOC_VAL
        mask = objects(labels, 255 if own else None)
        # SBD's half of the merge is grey and without borders, VOC's half as VOC ships it.
        save_mask(base / f"SegmentationClassAug/{image_id}.png", mask, COLOURS if own else None)
        if own:
            save_mask(base / f"SegmentationClass/{image_id}.png", mask)
            instances = np.where((mask > 0) & (mask < 255), 1 + (np.arange(SIZE[1]) >= SIZE[1] // 2), mask)
            save_mask(base / f"SegmentationObject/{image_id}.png", instances.astype(np.uint8))
        annotation(base / f"Annotations/{image_id}.xml", image_id, [VOC_CLASSES[label] for label in labels])
    lists = base / "ImageSets/Segmentation"
    save_list(lists / "train.txt", VOC_PLAIN_TRAIN)
    save_list(lists / "trainval.txt", sorted((*VOC_PLAIN_TRAIN, *VOC_VAL)))
    save_list(lists / "val.txt", VOC_VAL)
    save_list(lists / "test.txt", VOC_TEST)
    save_list(lists / "train_aug.txt", VOC_TRAIN)
    return root / "VOCdevkit"


def agmm_voc(root: Path) -> Path:
    """AGMM's folder: its own two-column lists, and sparse labels where its code looks for them (agmm.md 7)."""
    for number, image_id in enumerate((*VOC_TRAIN, *VOC_VAL)):
        save_picture(root / f"JPEGImages/{image_id}.jpg", number)
        mask = objects(voc_labels(image_id))
        save_mask(root / f"SegmentationClassAug/{image_id}.png", mask)
        if image_id in VOC_TRAIN:
            save_mask(root / f"point/segcls/{image_id}.png", sparse(mask, 8, 3), None)
            save_mask(root / f"scribble/seginst/{image_id}.png", sparse(mask, 1, 3), None)
    for split, ids in (("train", VOC_TRAIN), ("val", VOC_VAL)):
        save_list(root / f"splits/pascal/{split}.txt", [f"{i}.jpg {i}.png" for i in ids])
    return root


def sparse(mask_HW: NDArray[np.uint8], every: int, row: int, unlabelled: int = 255) -> NDArray[np.uint8]:
    """A mask with labels only on every nth column of two rows."""
    out = np.full_like(mask_HW, unlabelled)
    for y in (row - 2, mask_HW.shape[0] // 2):
        out[y, ::every] = mask_HW[y, ::every]
    out[out == 255] = unlabelled
    return out


def annotation(path: Path, name: str, classes: Sequence[str]) -> None:
    """A VOC XML with one box a class."""
    boxes = "".join(
        f"<object><name>{c}</name><difficult>0</difficult><bndbox><xmin>{2 + 9 * i}</xmin><ymin>4</ymin>"
        f"<xmax>{8 + 9 * i}</xmax><ymax>15</ymax></bndbox></object>"
        for i, c in enumerate(classes)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><folder>VOC2012</folder><filename>{name}.jpg</filename><size><width>{SIZE[1]}</width>"
        f"<height>{SIZE[0]}</height><depth>3</depth></size><segmented>1</segmented>{boxes}</annotation>"
    )


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


COCO_TRAIN = tuple(range(9, 9 + 40 * 3, 3))
"""Numbers of the training images: forty, two classes each, so that all eighty occur."""
COCO_VAL = (42, 73, 74, 133)
COCO_EMPTY = {"train": 10, "val": 43}
"""Images that have no annotation and therefore belong to no split."""
COCO_SIZES = {"train": len(COCO_TRAIN), "val": len(COCO_VAL)}


def coco_id(number: int, split: str) -> str:
    return f"COCO_{split}2014_{number:012d}"


def coco_labels(number: int, split: str) -> tuple[int, int]:
    if split == "val":
        return COCO_VAL.index(number) + 1, 80
    at = COCO_TRAIN.index(number)
    return 2 * at + 1, 2 * at + 2


def coco_mask(number: int, split: str) -> NDArray[np.uint8]:
    """What `coco_json` draws: a crowd in the last column, two rectangles, the smaller on the larger."""
    first, second = coco_labels(number, split)
    mask = np.zeros(SIZE, np.uint8)
    mask[:, -1] = 255
    mask[4:20, 4:24] = first
    mask[8:12, 8:16] = second
    return mask


def rectangle(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def coco_json(split: str, numbers: Sequence[int]) -> dict[str, Any]:
    """An instances file: polygons, a run-length crowd, text run lengths; the smaller object stands first or last."""
    from pycocotools import mask as coco

    from harness.datasets.coco.names import CATEGORY_IDS, CLASSES

    height, width = SIZE
    annotations: list[dict[str, Any]] = []
    for number in numbers:
        large, small = (CATEGORY_IDS[label - 1] for label in coco_labels(number, split))
        inner = np.zeros(SIZE, np.uint8, order="F")
        inner[8:12, 8:16] = 1
        text = coco.encode(inner)["counts"].decode()
        pair = [
            {"category_id": large, "segmentation": rectangle(4, 4, 20, 24), "area": 320.0, "iscrowd": 0},
            {"category_id": small, "segmentation": {"size": [height, width], "counts": text}, "area": 32, "iscrowd": 0},
        ]
        runs = {"size": [height, width], "counts": [height * (width - 1), height]}
        crowd = {"category_id": 1, "segmentation": runs, "area": height, "iscrowd": 1}
        for annotation in (*(pair if number % 2 else pair[::-1]), crowd):
            annotations.append({"id": len(annotations) + 1, "image_id": number, "bbox": [4, 4, 20, 16], **annotation})
    images = [
        {"id": n, "file_name": f"{coco_id(n, split)}.jpg", "height": height, "width": width}
        for n in (*numbers, COCO_EMPTY[split])
    ]
    categories = [
        {"id": number, "name": name, "supercategory": "thing"}
        for number, name in zip(CATEGORY_IDS, CLASSES[1:], strict=True)
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def coco(
    root: Path,
    images: str = "JPEGImages/{split}2014",
    masks: str | None = "SegmentationClass/{split}2014",
    mask_name: str = "{name}",
    *,
    names: tuple[str, str] = ("train", "val"),
    annotations: bool = False,
    lists: bool = True,
) -> Path:
    """COCO 2014 in a layout given by where images and masks lie; `names` stand for {split}."""
    for at, (split, numbers) in enumerate((("train", COCO_TRAIN), ("val", COCO_VAL))):
        place = {"split": names[at]}
        for number in (*numbers, COCO_EMPTY[split]):
            name = coco_id(number, split)
            save_picture(root / images.format(**place) / f"{name}.jpg", number)
            if masks and number != COCO_EMPTY[split]:
                stem = mask_name.format(name=name, number=number)
                save_mask(root / masks.format(**place) / f"{stem}.png", coco_mask(number, split), None)
        if annotations:
            write_json(root / f"annotations/instances_{split}2014.json", coco_json(split, numbers))
        if lists:
            save_list(root / f"{split}.txt", [coco_id(number, split) for number in numbers])
    if lists:
        save_list(root / "val_part.txt", [coco_id(number, "val") for number in COCO_VAL[:2]])
    return root


def coco2014(root: Path) -> Path:
    """FSAE's folder: COCO2014/train/{image,mask,xml} and COCO2014/validation/{image,mask,xml}."""
    from harness.datasets.coco.names import CLASSES

    base = root / "COCO2014"
    coco(base, "{split}/image", "{split}/mask", names=("train", "validation"))
    for split, folder, numbers in (("train", "train", COCO_TRAIN), ("val", "validation", COCO_VAL)):
        for number in numbers:
            labels = [CLASSES[label] for label in coco_labels(number, split)]
            annotation(base / f"{folder}/xml/{coco_id(number, split)}.xml", coco_id(number, split), labels)
    return root


COCO_LAYOUTS = {
    "FSR and BRNF": lambda root: coco(root / "COCO"),
    "ToCo": lambda root: coco(root / "MSCOCO", "JPEGImages/{split}", "SegmentationClass/{split}"),
    "UniA": lambda root: coco(
        root / "MSCOCO", "JPEGImages/{split}", "SegmentationClass/{split}", "{number:012d}", lists=False
    ),
    "coco2voc": lambda root: coco(root, "{split}2014", "SegmentationClass/{split}2014", "{number}", lists=False),
    "SIPE": lambda root: coco(root, "{split}2014", "SegmentationClass"),
    "FSAE": coco2014,
    "annotations": lambda root: coco(root, "{split}2014", None, annotations=True, lists=False),
    "images and annotations": lambda root: coco(root, "images/{split}2014", None, annotations=True),
    "annotations beside VOC style": lambda root: coco(root, masks=None, annotations=True),
}
"""Every way in which COCO 2014 lies on disk, by who prints it."""


CITY_TRAIN = {"aachen": ("aachen_000000_000019", "aachen_000001_000019"), "bochum": ("bochum_000000_000313",)}
CITY_VAL = {"frankfurt": ("frankfurt_000000_000294",), "munster": ("munster_000000_000019",)}
CITY_TEST = {"berlin": ("berlin_000000_000019",)}
CITY_SIZES = {"train": 3, "val": 2, "test": 1}


def city_mask(image_id: str) -> NDArray[np.uint8]:
    """trainIds: bands of classes, each picture begins with another; 255 at the lower edge (the ego vehicle)."""
    order = [*CITY_TRAIN["aachen"], *CITY_TRAIN["bochum"], *CITY_VAL["frankfurt"], *CITY_VAL["munster"]]
    bands = (np.arange(SIZE[1]) // 4 + 7 * order.index(image_id)) % 19
    mask = np.repeat(bands[None].astype(np.uint8), SIZE[0], 0)
    mask[-3:] = 255
    return mask


def cityscapes(root: Path, train_ids: bool = True, clicks: bool = False, lists: bool = False) -> Path:
    """leftImg8bit and gtFine as unpacked; `clicks` adds AGMM's folders (unlabelled 19), `lists` its two-column ones."""
    from harness.datasets.cityscapes import LABEL_IDS

    label_ids = np.zeros(256, np.uint8)
    label_ids[: len(LABEL_IDS)] = LABEL_IDS
    label_ids[255] = 1
    number = 0
    for split, cities in (("train", CITY_TRAIN), ("val", CITY_VAL), ("test", CITY_TEST)):
        lines = []
        for city, ids in cities.items():
            for image_id in ids:
                number += 1
                save_picture(root / f"leftImg8bit/{split}/{city}/{image_id}_leftImg8bit.png", number)
                truth = root / f"gtFine/{split}/{city}/{image_id}_gtFine"
                mask = np.full(SIZE, 255, np.uint8) if split == "test" else city_mask(image_id)
                save_mask(Path(f"{truth}_labelIds.png"), label_ids[mask], None)
                if train_ids:
                    save_mask(Path(f"{truth}_labelTrainIds.png"), mask, None)
                Image.fromarray(label_ids[mask].astype(np.uint16) * 1000).save(f"{truth}_instanceIds.png")
                Image.fromarray(np.zeros((*SIZE, 4), np.uint8)).save(f"{truth}_color.png")
                write_json(Path(f"{truth}_polygons.json"), {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": []})
                lines.append(f"{image_id}_leftImg8bit.png {image_id}_gtFine_labelTrainIds.png")
                lines[-1] = " ".join(
                    f"{folder}/{split}/{city}/{name}"
                    for folder, name in zip(("leftImg8bit", "gtFine"), lines[-1].split(), strict=True)
                )
                if clicks and split == "train":
                    for count, every in ((20, 9), (50, 4), (100, 2)):
                        path = root / f"{count}clicks/{image_id}_gtFine_labelTrainIds.png"
                        save_mask(path, sparse(mask, every, 3, unlabelled=19), None)
        if lists and split != "test":
            save_list(root / f"splits/cityscapes/{split}.txt", lines)
    return root


ACDC_GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
ACDC_TRAINING = tuple(f"patient{number:03d}" for number in range(1, 16))
ACDC_TESTING = tuple(f"patient{number:03d}" for number in range(101, 103))
ACDC_SIZES = {"training": len(ACDC_TRAINING), "testing": len(ACDC_TESTING)}
ACDC_SLICES = 3


def acdc_volume(patient: str, frame: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Intensities and labels (X,Y,Z) of a volume; its last slice shows no heart."""
    rng = np.random.default_rng([int(patient[-3:]), frame])
    labels = np.zeros((20, 16, ACDC_SLICES), np.uint8)
    for z in range(ACDC_SLICES - 1):
        labels[3:9, 4:12, z], labels[9:17, 4:12, z], labels[11:15, 6:10, z] = 1, 2, 3
    return (200 * labels + rng.integers(0, 90, labels.shape)).astype(np.int16), labels


def acdc(root: Path, testing: bool = True, below: str = "ACDC/database/training") -> Path:
    """Patients with two frames, labels, the 4-D film and Info.cfg; 15 for training, 2 for testing."""
    import nibabel

    training = root / below
    for folder, patients in ((training, ACDC_TRAINING), (training.parent / "testing", ACDC_TESTING)):
        for patient in patients if testing or folder is training else ():
            place = folder / patient
            place.mkdir(parents=True)
            group = ACDC_GROUPS[int(patient[-3:]) % 5]
            (place / "Info.cfg").write_text(
                f"ED: 1\nES: 12\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
            )
            for frame in (1, 12):
                image, labels = acdc_volume(patient, frame)
                affine = np.diag([1.5, 1.5, 10.0, 1.0])
                stem = place / f"{patient}_frame{frame:02d}"
                nibabel.save(nibabel.Nifti1Image(image, affine), f"{stem}.nii.gz")
                nibabel.save(nibabel.Nifti1Image(labels, affine), f"{stem}_gt.nii.gz")
            film = np.zeros((20, 16, ACDC_SLICES, 2), np.int16)
            nibabel.save(nibabel.Nifti1Image(film, np.eye(4)), f"{place}/{patient}_4d.nii.gz")
    return root


def cams_of(content: Any, where: str, num_classes: int, **words: bool) -> tuple[NDArray, NDArray]:
    """Classes and maps of one file's content, as an import writes them."""
    return sound_maps(*keys_and_maps(content, where), where, num_classes, **words)


def read_maps(path: Path, dataset: Dataset) -> Maps:
    """The maps of one file, as they are scored."""
    classes, maps, _ = arrays_of(path, dataset.num_classes)
    return checked_maps(path, classes, maps, dataset)
