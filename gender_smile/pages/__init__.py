"""HTML pages: report, suspects, web."""
