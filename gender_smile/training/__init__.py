"""The chain of steps: what each reads and writes, and the process that trains."""
