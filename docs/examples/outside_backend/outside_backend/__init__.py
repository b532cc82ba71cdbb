"""A storage driver and a target helper that Lunport finds by their entry points."""
