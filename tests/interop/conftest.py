"""Servers that several tests share."""

from tests.support.consul import consul
from tests.support.etcd import etcd

__all__ = ["consul", "etcd"]  # fixtures
