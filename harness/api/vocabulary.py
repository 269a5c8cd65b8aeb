"""Label values that mean the same everywhere (design section 4, Labels)."""

IGNORE = 255
"""No class: void in a mask, unlabelled in sparse labels, undecided in a pseudo mask."""


TIERS = ("smoke", "lab", "paper")

DECODERS = ("largefov", "deeplabv2", "deeplabv3plus")

PROTOCOLS = ("fixed", "held-out", "oracle")


LABELS = ("tags", "points", "scribbles", "clicks20", "clicks50", "clicks100", "blocks", "masks")


VARIANTS = ("default", "released", "paper")

TARGETS = ("cam", "pseudo", "segmentation")
