"""The flow: orders come in, runs are claimed and performed, what they find is recorded and told."""
