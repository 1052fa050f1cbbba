"""mDNS keeps the contract, with real multicast on the loopback interface.

Everybody on the link shares the store, other tests too; the suite's names are unique.
"""

from __future__ import annotations

import pytest

from svcreg.testing import BackendConformance

pytest.importorskip("svcreg_mdns")


class TestMdns(BackendConformance):
    backend_url = "mdns://?interfaces=lo"
    ttl = 2.0
    grace = 2.0
    settle = 5.0
    name_limit = 252  # one TXT string holds 255 bytes, of which the key takes three
