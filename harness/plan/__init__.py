"""From words to resolved configs, studies and the payload of a run."""
