"""Consul for svcreg: services find each other through Consul's agents."""

from svcreg_consul.backend import ConsulBackend

__all__ = ["ConsulBackend"]
