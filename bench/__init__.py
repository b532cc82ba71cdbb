"""Measurements of the service, beside numbers of the peer; see ``bench/README.md``."""
