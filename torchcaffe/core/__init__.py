"""Nets, blobs and how they run."""
