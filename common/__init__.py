"""Plumbing that every command shares."""
