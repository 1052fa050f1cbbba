"""etcd for svcreg: go-micro's keys and values, one lease per process, any member that answers."""

from svcreg_etcd.backend import EtcdBackend

__all__ = ["EtcdBackend"]
