"""Multicast DNS for svcreg: the services of one link find each other without a server."""

from svcreg_mdns.backend import MdnsBackend

__all__ = ["MdnsBackend"]
