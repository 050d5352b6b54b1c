"""Scores, tables and intervals."""
