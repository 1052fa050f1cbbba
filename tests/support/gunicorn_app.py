"""A WSGI application as gunicorn runs it, whose registry is opened before the workers are forked.

SUPPORT_URL is the registry, SUPPORT_NAME the service, and SUPPORT_WHO says who registers it:
`parent`, once for all, while this module is imported; or `worker`, each worker for itself, from
gunicorn's `post_fork` hook (this file is its configuration, too).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import svcreg
from svcreg import Node, Service

URL, NAME = os.environ["SUPPORT_URL"], os.environ["SUPPORT_NAME"]
BIND = os.environ["SUPPORT_BIND"]
TTL = 2.0

bind, workers, preload_app, wsgi_app = BIND, 4, True, "tests.support.gunicorn_app:app"


def register(node_id: str) -> None:
    """Register this process."""
    registry.register(Service(NAME, nodes=(Node(node_id, BIND),)), ttl=TTL)


def post_fork(_server: Any, worker: Any) -> None:
    """Be called by gunicorn in each new worker."""
    if os.environ["SUPPORT_WHO"] == "worker":
        from tests.support import gunicorn_app

        gunicorn_app.register(f"worker-{worker.pid}")


def app(
    _environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    """Answer with the ids that this worker finds, and with its process id."""
    found = sorted(node.id for service in registry.get(NAME) for node in service.nodes)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "found": found}).encode()]


if __name__ == "tests.support.gunicorn_app":  # not when gunicorn reads it as its configuration
    registry = svcreg.open(URL)
    if os.environ["SUPPORT_WHO"] == "parent":
        register("parent")
    else:
        registry.get(NAME)  # starts the engine, with its thread and connection, before the fork
