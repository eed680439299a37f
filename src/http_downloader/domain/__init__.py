"""The rules: pure values and functions, no I/O, no clock, no randomness of their own."""
