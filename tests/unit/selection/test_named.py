"""A strategy of another distribution is found by name, imported when named, and may be broken."""

from __future__ import annotations

import sys
import uuid

import pytest

import svcreg
from svcreg import ConfigError, Node, Service
from svcreg.selection import Random, make_strategy
from tests.support.plugins import Distributions

GROUP = "svcreg.strategies"
LAST = """
class Last:
    def pick(self, nodes, key):
        return nodes[-1]
"""


def install(
    distributions: Distributions, source: str = LAST, name: str = "last", owner: str = "acme"
) -> None:
    module = f"{owner}_strategies"
    point = {name: f"{module}:Last"}
    distributions.install(owner, {module: source}, point, version="1.2", group=GROUP)


def test_added_strategy_is_imported_when_it_is_named(distributions: Distributions) -> None:
    install(distributions)
    make_strategy("random")
    assert "acme_strategies" not in sys.modules
    made = make_strategy("last")
    assert made.pick([Node("a", "h:1"), Node("b", "h:1")], None).id == "b"
    assert make_strategy("last") is not made


def test_added_strategy_is_reached_by_argument_and_environment(
    distributions: Distributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(distributions)
    url = f"memory://{uuid.uuid4().hex}"
    nodes = [Node(one, "10.0.0.5:80") for one in "abc"]
    with svcreg.open(url) as registry:
        registry.register(Service("greeter", nodes=nodes))
        assert registry.select("greeter", strategy="last").id == "c"
        assert registry.selector("greeter", strategy="last").pick().id == "c"
        monkeypatch.setenv("MICRO_SELECTOR", "last")
        with svcreg.open(url) as other:
            assert {other.select("greeter").id for _ in range(20)} == {"c"}


def test_built_in_name_stays_what_it_is(distributions: Distributions) -> None:
    install(distributions, name="random")
    assert isinstance(make_strategy("random"), Random)
    assert "acme_strategies" not in sys.modules


def test_unknown_name_lists_the_added_ones_too(distributions: Distributions) -> None:
    install(distributions)
    with pytest.raises(
        ConfigError, match="no strategy 'best'; there are random, round_robin, last"
    ):
        make_strategy("best")


def test_name_that_two_distributions_have_is_refused(distributions: Distributions) -> None:
    install(distributions)
    install(distributions, owner="other")
    with pytest.raises(ConfigError, match=r"provided by acme 1\.2 and other 1\.2; uninstall"):
        make_strategy("last")


def test_entry_point_that_is_found_twice_is_one(distributions: Distributions) -> None:
    for _ in range(2):
        install(distributions)
    assert make_strategy("last").pick([Node("a", "h:1")], None).id == "a"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nosuch_module", "ModuleNotFoundError: No module named 'nosuch_module'"),
        ("raise SystemExit('not here')", "SystemExit: not here"),
        ("Last = 3", "TypeError: 'int' object is not callable"),
        ("def Last(nodes): pass", "TypeError: "),
        ("def Last(): return 3", "made a int, which has no method pick"),
    ],
)
def test_broken_strategy_says_whose_it_is(
    distributions: Distributions, source: str, problem: str
) -> None:
    install(distributions, source)
    with pytest.raises(ConfigError) as caught:
        make_strategy("last")
    assert str(caught.value).startswith("strategy 'last' (acme 1.2, acme_strategies:Last) ")
    assert problem in str(caught.value)


def test_strategy_of_a_damaged_distribution_works(distributions: Distributions) -> None:
    distributions.install(
        "acme",
        {"acme_strategies": LAST},
        {"last": "acme_strategies:Last"},
        group=GROUP,
        metadata=False,
    )
    assert make_strategy("last").pick([Node("a", "h:1")], None).id == "a"
