"""Exits and clocks for a network that is given: its weights stay as they are, only heads are trained."""
