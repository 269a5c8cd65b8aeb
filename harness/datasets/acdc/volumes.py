"""NIfTI volumes as stacks of 2-D slices: read whole and right, or a BadInput names the file and the fix."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.datasets.io.opening import stat_of
from harness.errors import BadInput, Problem

CLASSES = ("background", "RV", "Myo", "LV")
"""Right ventricle, myocardium and left ventricle, numbered as ACDC numbers them."""
WINDOW = (0.5, 99.5)
"""Percentiles of a volume's intensities that become 0 and 255."""
MAX_VOXELS = 1 << 27
MAX_HEADER = 1 << 24
"""Bytes of header and extensions: more is no volume, but a file made to fill the memory."""
_RENEW = "copy or download the file again, or take the patient out of the lists"


def volume_shape(path: Path) -> tuple[int, int, int]:
    """(slices, H, W) from the header alone. Raises BadInput."""
    return _opened(path)[1]


def read_images(path: Path) -> NDArray[np.uint8]:
    """Grey slices (slices,H,W): intensities of the whole volume between two percentiles, as 0..255. Raises BadInput."""
    voxels = _voxels(path)
    if not np.isfinite(voxels).all():
        raise BadInput(Problem(str(path), "intensities that are not finite", _RENEW))
    low, high = np.percentile(voxels, WINDOW)
    scaled = (voxels - low) / (high - low) if high > low else np.zeros_like(voxels)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Labels (slices,H,W). Raises BadInput, also for values that are no whole numbers of 0..255."""
    voxels = _voxels(path)
    labels = voxels.astype(np.uint8) if np.isfinite(voxels).all() and ((voxels >= 0) & (voxels <= 255)).all() else None
    if labels is None or not np.array_equal(labels, voxels):
        fix = f"store the labels 0..{len(CLASSES) - 1} themselves, resampled by nearest neighbour"
        raise BadInput(Problem(str(path), "values that are no label numbers", fix))
    return labels


def volume_bytes(labels: NDArray[np.uint8], like: Path) -> bytes:
    """A `.nii.gz` of label slices (slices,H,W) where the volume `like` lies in space; equal labels give equal bytes."""
    import nibabel

    image, shape = _opened(like)
    if labels.shape != shape:
        raise ValueError(f"slices {labels.shape} of a volume of {shape}")
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    made = nibabel.nifti1.Nifti1Image(labels.transpose(2, 1, 0), image.affine, header)
    return gzip.compress(made.to_bytes(), mtime=0)


def _voxels(path: Path) -> NDArray[np.float64]:
    import nibabel

    image, shape = _opened(path)
    try:
        if path.suffix.lower() == ".gz":
            # nibabel stops at the last voxel, before gzip's checksum and length.
            most = math.prod(shape) * image.get_data_dtype().itemsize + MAX_HEADER
            with gzip.open(path) as file:
                data = file.read(most + 1)
            if len(data) > most:
                raise ValueError(f"more than {most} bytes for its {math.prod(shape)} voxels")
            image = nibabel.nifti1.Nifti1Image.from_bytes(data)
        voxels = np.asarray(image.dataobj, np.float64)
    # nibabel and the decompressors raise almost any class on damaged bytes; all mean the same here.
    except Exception as error:
        raise BadInput(Problem(str(path), f"damaged or cut off ({error})", _RENEW)) from error
    # NIfTI counts x (columns) first; what is shown and drawn is rows by columns.
    return voxels.reshape(voxels.shape[:3]).transpose(2, 1, 0)


def _opened(path: Path) -> tuple[Any, tuple[int, int, int]]:
    import nibabel

    stat_of(path)
    try:
        image = nibabel.nifti1.load(str(path))
        shape = tuple(int(n) for n in image.header.get_data_shape())
    except Exception as error:
        raise BadInput(Problem(str(path), f"no NIfTI file, or its header is damaged ({error})", _RENEW)) from error
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        found = f"a volume of {'x'.join(map(str, shape))} voxels, one stack of slices expected"
        raise BadInput(Problem(str(path), found, "take patient<n>_frame<m>.nii.gz, not the 4-D film"))
    if image.get_data_dtype().kind not in "iuf":
        raise BadInput(Problem(str(path), f"voxels of type {image.get_data_dtype()}", "store numbers"))
    return image, (shape[2], shape[1], shape[0])
