"""How fast the program is, measured side by side with gallery-dl's own command line: `python -m benchmarks.run`."""
