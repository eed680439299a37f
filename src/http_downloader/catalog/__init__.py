"""The database: every source, run, order and file, and one function per transaction."""
