"""Markdown for docs/parity.md."""


def table(names, rows):
    """Table of rows; floats as differences are written."""
    lines = ["", "| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [("0" if cell == 0 else f"{cell:.1e}") if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
