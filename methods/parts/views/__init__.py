"""Training views of an image: crops, flips, colours."""
