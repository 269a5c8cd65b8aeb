"""Label values that mean the same everywhere (design section 4, Labels)."""

IGNORE = 255
"""No class: void in a mask, unlabelled in sparse labels, undecided in a pseudo mask."""
