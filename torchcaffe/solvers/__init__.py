"""Solvers, update rules, learning rates and snapshots."""
