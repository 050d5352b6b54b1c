"""Drawn portraits with known labels."""
