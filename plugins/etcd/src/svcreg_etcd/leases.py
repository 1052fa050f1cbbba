"""The registrations of a process: which lease holds which record. One lease per TTL."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence

from svcreg import Service
from svcreg_etcd import messages as m
from svcreg_etcd.cluster import Cluster
from svcreg_etcd.lease import Lease
from svcreg_etcd.records import Keyspace
from svcreg_etcd.requests import BATCH_RECORDS

CLOSE_TIMEOUT = 1.0
"""Seconds that closing waits for the leases to be revoked; after that their TTL does it."""


class Leases:
    """Registers, keeps and withdraws. Loop only."""

    def __init__(self, cluster: Cluster, keyspace: Keyspace) -> None:
        self._cluster = cluster
        self._keyspace = keyspace
        self._leases: dict[int, Lease] = {}  # by TTL in whole seconds

    async def register(self, service: Service, ttl: float) -> None:
        """Create or replace the nodes of a service.

        Raises:
            RpcError: Not acknowledged.
            InvalidServiceError: A record is too large.
        """
        values = dict(self._keyspace.encode(service))
        lease = self._lease(ttl)
        await lease.put(values)
        for other in list(self._leases.values()):  # a node may have come with another TTL
            if other is not lease and (moved := other.records.keys() & values.keys()):
                await other.drop(moved)

    async def renew(self, services: Sequence[Service], ttl: float) -> list[Service]:
        """Keep the lease of one TTL; return the services that do not hang on it.

        Raises:
            RpcError: The cluster could not be asked.
        """
        lease = self._lease(ttl)
        if lease.records:
            await lease.keep()
        known = lease.records
        return [
            service
            for service in services
            if not all(
                key in known and known[key].is_wanted for key in self._keyspace.keys(service)
            )
        ]

    async def deregister(self, service: Service) -> None:
        """Withdraw nodes: ours where they still are ours, others whoever registered them.

        Raises:
            RpcError: Not acknowledged.
        """
        keys = self._keyspace.keys(service)
        ours: set[bytes] = set()
        for lease in list(self._leases.values()):
            if held := [key for key in keys if key in lease.records]:
                ours.update(held)
                await lease.drop(held)
        others = [key for key in keys if key not in ours]
        for start in range(0, len(others), BATCH_RECORDS):
            deletes = [
                m.RequestOp(request_delete_range=m.DeleteRangeRequest(key=key))
                for key in others[start : start + BATCH_RECORDS]
            ]
            await self._cluster.txn(m.TxnRequest(success=deletes))

    async def close(self) -> None:
        """Revoke every lease, bounded; never raises because the cluster is away."""
        leases, self._leases = list(self._leases.values()), {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await asyncio.gather(*(lease.close() for lease in leases), return_exceptions=True)

    def _lease(self, ttl: float) -> Lease:
        seconds = math.ceil(ttl)  # etcd counts whole seconds, and grants no less than about two
        if seconds not in self._leases:
            self._leases[seconds] = Lease(self._cluster, seconds)
        return self._leases[seconds]
