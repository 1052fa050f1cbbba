"""What go-micro itself cannot do, and what that means to a Python program beside it.

Each of these holds for go-micro; where one fails, go-micro has become better, and the guide has to
say so.
"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from tests.interop.conftest import World, on
from tests.support.etcd import Etcd, unique
from tests.support.gomicro import PATIENCE, GoMicro, Message, Peer
from tests.support.gomicro_services import ENDPOINT, register, seen, service
from tests.support.servers import eventually


@on("etcd")
class TestEtcd:
    def test_watch_of_go_micro_gets_one_event_of_a_transaction(self, world: World) -> None:
        name = unique("batch")
        batch = service(name, *(f"{name}-{number}" for number in range(5)))
        last = service(name, f"{name}-last")
        for peer in (world.go, world.python):
            peer.call("watch", name=name)

        def nodes(peer: Peer, wanted: str) -> list[str]:
            return [node_id for action, node_id, _ in seen(peer, name) if action == wanted]

        for record in (batch, last):  # svcreg writes the nodes of a registration together
            register(world.python, record)
        eventually(lambda: f"{name}-last" in nodes(world.go, "create"))
        assert len(nodes(world.go, "create")) == 2
        assert len(world.go.nodes(name)) == 6  # reading finds them all
        for record in (batch, last):
            world.python.call("deregister", service=record)
        eventually(lambda: f"{name}-last" in nodes(world.go, "delete"))
        assert len(nodes(world.go, "delete")) == 2
        eventually(lambda: len(nodes(world.python, "delete")) == 6)
        assert len(nodes(world.python, "create")) == 6

    @pytest.mark.parametrize(
        "change",
        [
            {"version": "2.0.0"},
            {"metadata": {"team": "web"}},
            {"endpoints": [ENDPOINT, {**ENDPOINT, "name": "Greeter.Bye"}]},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_go_micro_writes_a_change_only_if_it_is_the_nodes(
        self, world: World, change: Message
    ) -> None:
        name = unique("same")
        before = service(name, f"{name}-1")
        after = {**before, **change}
        for record in (before, after):
            register(world.go, record)
        assert world.python.call("get", name=name) == [before]
        world.go.call("deregister", service=after)
        for record in (before, after):  # svcreg writes it
            register(world.python, record)
        eventually(lambda: world.go.call("get", name=name) == [after])
        world.python.call("deregister", service=after)

    def test_lagging_watch_of_go_micro_ends_its_program_once_history_is_compacted(
        self, world: World, etcd: Etcd
    ) -> None:
        name = unique("lag")
        record, filler = service(name, f"{name}-1"), f"/micro/registry/{name}/filler"
        world.python.call("watch", name=name)
        with contextlib.ExitStack() as stack:
            go = world.start_go(stack)
            go.call("watch", name=name)
            register(world.python, record)
            go.expect(lambda event: event["event"] == "create")
            go.process.popen.send_signal(signal.SIGSTOP)
            for _ in range(8):  # more than is on its way to a program that does not read
                etcd.put(filler, "x" * 1_000_000)
            world.python.call("deregister", service=record)
            etcd.delete(filler)
            etcd.compact()
            go.process.popen.send_signal(signal.SIGCONT)
            go.process.popen.wait(PATIENCE)
            assert "registry/etcd.(*etcdWatcher).Next" in go.process.log
        eventually(lambda: len(seen(world.python, name)) == 2)  # which svcreg survives


@pytest.mark.server("etcd")
@pytest.mark.xdist_group("interop-etcd")
def test_programs_with_go_micros_grpc_cannot_use_etcd(etcd: Etcd, tmp_path: Path) -> None:
    with GoMicro(tmp_path / "go.log", "etcd", etcd.endpoint, grpc=True) as go:
        answer = go.ask("list")
    assert "error while marshaling: invalid message" in answer["error"]


@on("consul")
class TestConsul:
    def test_go_micro_registers_the_first_node_only(self, world: World) -> None:
        name = unique("first")
        record = service(name, f"{name}-1", f"{name}-2")
        register(world.go, record)
        assert set(world.python.nodes(name)) == {f"{name}-1"}
        world.go.call("deregister", service=record)
        register(world.python, record)  # svcreg registers both
        eventually(lambda: set(world.go.nodes(name)) == {f"{name}-1", f"{name}-2"})
        world.python.call("deregister", service=record)

    def test_to_a_watch_of_go_micro_a_service_that_comes_back_is_an_update(
        self, world: World
    ) -> None:
        name = unique("again")
        record = service(name, f"{name}-1")
        expected = ["create", "delete", "update", "delete"]

        def wait_for(count: int) -> None:
            eventually(lambda: len(seen(world.go, name)) >= count)
            assert [action for action, *_ in seen(world.go, name)] == expected[:count]

        world.go.call("watch", name=name)
        for count in (1, 3):
            register(world.python, record)
            wait_for(count)
            world.python.call("deregister", service=record)
            wait_for(count + 1)

    def test_metadata_that_consul_has_no_room_for_is_refused_of_go_micro_only(
        self, world: World
    ) -> None:
        name = unique("room")
        record = service(name, f"{name}-1", text="x" * 600)  # Consul takes 512
        assert "too long" in world.go.ask("register", service=record)["error"]
        register(world.python, record)
        eventually(lambda: world.go.nodes(name))
        assert world.go.nodes(name)[f"{name}-1"]["metadata"] == {"text": "x" * 600}
        world.python.call("deregister", service=record)

    def test_id_with_capitals_has_a_suffix_for_go(self, world: World) -> None:
        """Consul's catalogue takes ids that differ in case only for one; svcreg does not."""
        name = unique("case")
        record = service(name, f"{name}-A")
        register(world.python, record)
        eventually(lambda: world.go.nodes(name))
        ((node_id, node),) = world.go.nodes(name).items()
        assert node_id.startswith(f"{name}-A:")
        assert node["address"] == record["nodes"][0]["address"]
        world.python.call("deregister", service=record)
