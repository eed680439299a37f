"""A small gallery on loopback, for trying the main job without the Internet."""
