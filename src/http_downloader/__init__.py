"""Keeps local folders in step with remote galleries."""

from importlib.metadata import version

__version__ = version("http-downloader")
