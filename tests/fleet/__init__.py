"""Several workers on one broker, one catalog and one mirror, of which some are killed or paused, watched by the sites."""
