"""The measured claims of the README, one module each: see measuring.py."""
