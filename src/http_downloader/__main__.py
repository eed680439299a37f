"""`python -m http_downloader` is the command `http-downloader`."""

from .cli import main

main()
