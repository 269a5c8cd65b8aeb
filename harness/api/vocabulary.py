"""Values that mean the same everywhere, each list once (design sections 1 and 4)."""

IGNORE = 255
"""No class: void in a mask, unlabelled in sparse labels, undecided in a pseudo mask."""

TIERS = ("smoke", "lab", "paper")

DECODERS = ("largefov", "deeplabv2", "deeplabv3plus")

PROTOCOLS = ("fixed", "held-out", "oracle")

LABELS = ("tags", "points", "scribbles", "clicks20", "clicks50", "clicks100", "blocks", "coarse", "pseudo", "masks")
"""Kinds of labels; coarse are outlines that leave borders open, read where a dataset has them (Cityscapes); pseudo are
masks that another program made without those of the dataset, read from the folder `data.pseudo`."""

VARIANTS = ("default", "released", "paper")

SPLITS = ("train", "val", "test")

TARGETS = ("cam", "pseudo", "segmentation")

KEEP = ("last", "best", "maps", "none")
"""What may stay on disk after a run."""
