"""The measurements of docs/benchmarks.md, one module each: see measuring.py."""
