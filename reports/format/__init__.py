"""Rendering of tables: terminal, markdown, LaTeX, HTML, files."""
