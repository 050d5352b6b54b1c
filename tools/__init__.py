"""The commands: each one `python tools/NAME.py --help`."""
