"""A random workload under random kills and outages, and whether every promise of docs/reliability.md was kept."""
