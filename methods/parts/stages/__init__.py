"""Stages that recipes of several stages share, by the names that `PerImage.does` gives them."""
