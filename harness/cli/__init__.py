"""Command-line words: one parser for every command, the words of runs, plan files."""
