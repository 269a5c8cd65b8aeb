"""Parts of a page: boards, choices, per-class tables."""
