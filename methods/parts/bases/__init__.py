"""Bases that methods stand on: networks with losses, optimisers and schedules, without a `step`."""
