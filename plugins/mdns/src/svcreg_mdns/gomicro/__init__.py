"""go-micro's own way to do multicast DNS; see `docs/decisions/0014`."""

from svcreg_mdns.gomicro.dialect import GoMicro

__all__ = ["GoMicro"]
