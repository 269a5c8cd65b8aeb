"""Stages of recipes, one to a file, and the recipes made of them."""
