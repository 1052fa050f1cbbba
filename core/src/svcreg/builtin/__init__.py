"""Backends that need no server and come with core: `memory` and `sqlite`."""
