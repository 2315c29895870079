"""Placeholder docstring: the room is being built."""
