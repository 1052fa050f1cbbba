"""Everything that takes time: the private loop, heartbeats, watches, and what is known."""
