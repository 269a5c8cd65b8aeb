"""Reading of images, lists and foreign files; nothing here knows a dataset."""
