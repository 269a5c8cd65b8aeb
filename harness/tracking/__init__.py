"""Exports for people who look elsewhere, derived from the store by the driver."""
