"""Loading: only what is chosen is imported, and every breach of the contract is explained."""

from __future__ import annotations

import logging
import sys
import textwrap
from types import ModuleType
from typing import Any

import pytest

from svcreg import BackendLoadError, BackendNotFoundError, Config, ConfigError, backends
from svcreg.plugins import EXTENSIONS, build_backend, load_factory, load_observers
from tests.support.plugins import Distributions

GOOD = """
    import svcreg

    class Backend:
        def __init__(self, config):
            self.config = config

        @svcreg.hookimpl
        def svcreg_register(self, service, ttl): ...

        @svcreg.hookimpl
        def svcreg_deregister(self, service): ...

        @svcreg.hookimpl
        def svcreg_get(self, name):
            return (svcreg.Service(name),)

        @svcreg.hookimpl
        def svcreg_list(self):
            return ("greeter",)

        @svcreg.hookimpl
        async def svcreg_watch(self, name):
            yield svcreg.Snapshot()
"""


def source(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def load(distributions: Distributions, text: str, attribute: str = ":Backend") -> Any:
    """Install a plugin with this source, load it and build its backend."""
    distributions.install("svcreg-acme", {"acme_module": text}, {"acme": f"acme_module{attribute}"})
    return build_backend(load_factory("acme"), Config(backend="acme", addresses=("h:1",)))


def refusal(distributions: Distributions, text: str, attribute: str = ":Backend") -> str:
    with pytest.raises(BackendLoadError) as caught:
        load(distributions, text, attribute)
    return str(caught.value)


def test_built_in_backends_are_installed() -> None:
    found = backends()
    assert {"memory", "sqlite"} <= set(found)
    assert found["memory"].distribution == "svcreg"
    assert found["memory"].entry_point == "svcreg.builtin.memory:MemoryBackend"
    assert list(found) == sorted(found)


def test_backends_imports_none_of_them(distributions: Distributions) -> None:
    distributions.install(
        "svcreg-acme", {"acme_module": "raise SystemExit"}, {"acme": "acme_module:Backend"}
    )
    info = backends()["acme"]
    assert (info.distribution, info.version) == ("svcreg-acme", "1.0")
    assert "acme_module" not in sys.modules
    with pytest.raises(TypeError):
        backends()["more"] = info  # type: ignore[index]


def test_damaged_installation_hides_no_other(distributions: Distributions) -> None:
    distributions.install("svcreg-bad", {}, {"bad": "bad:Backend"}, metadata=False)
    distributions.install("svcreg-worse", {}, {"worse": "not an entry point"})
    assert {"memory", "bad", "worse"} <= set(backends())
    with pytest.raises(BackendLoadError, match="'worse'"):
        load_factory("worse")


def test_only_the_chosen_backend_is_imported(distributions: Distributions) -> None:
    distributions.install("svcreg-other", {"other_module": GOOD}, {"other": "other_module:Backend"})
    manager = load(distributions, GOOD)
    assert "acme_module" in sys.modules
    assert "other_module" not in sys.modules
    assert manager.hook.svcreg_list() == ("greeter",)


def test_factory_is_given_the_configuration(distributions: Distributions) -> None:
    (backend,) = load(distributions, GOOD).get_plugins()
    assert backend.config == Config(backend="acme", addresses=("h:1",))


def test_factory_may_be_a_function(distributions: Distributions) -> None:
    text = textwrap.dedent(GOOD) + "\ndef make(config):\n    return Backend(config)\n"
    assert load(distributions, text, ":make").hook.svcreg_list() == ("greeter",)


MODULE = """
    import svcreg
    import svcreg_helper
    from svcreg import hookimpl

    svcreg_helper_setting = 1

    @hookimpl
    def svcreg_register(service, ttl): ...

    @hookimpl
    def svcreg_deregister(service): ...

    @hookimpl
    def svcreg_get(name):
        return ()

    @hookimpl
    def svcreg_list():
        return ("module",)

    @hookimpl
    def svcreg_watch(name, stop):
        yield svcreg.Snapshot()
"""


def test_plain_module_is_a_backend(distributions: Distributions) -> None:
    distributions.install("helper", {"svcreg_helper": ""}, {})
    assert load(distributions, MODULE, "").hook.svcreg_list() == ("module",)


def test_optional_hook_may_be_switched_off_in_a_subclass(distributions: Distributions) -> None:
    text = textwrap.dedent(GOOD) + textwrap.dedent(
        """
        class WithRenew(Backend):
            @svcreg.hookimpl
            def svcreg_renew(self, services, ttl): ...

        class Without(WithRenew):
            svcreg_renew = None
        """
    )
    assert load(distributions, text, ":Without").hook.svcreg_renew.get_hookimpls() == []


def test_unknown_backend_lists_what_is_installed_and_what_to_install() -> None:
    with pytest.raises(BackendNotFoundError) as caught:
        load_factory("acme")
    assert "no backend 'acme'" in str(caught.value)
    assert "memory" in str(caught.value)
    assert "sqlite" in str(caught.value)
    assert "pip install svcreg-acme" in str(caught.value)


def test_backend_of_this_project_is_offered_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib_metadata.entry_points", lambda group: ())
    with pytest.raises(BackendNotFoundError) as caught:
        load_factory("consul")
    assert "installed: none" in str(caught.value)
    assert "pip install svcreg-consul" in str(caught.value)


def test_misspelt_backend_is_offered_the_nearest() -> None:
    with pytest.raises(BackendNotFoundError, match="Did you mean 'sqlite'") as caught:
        load_factory("sqlit")
    assert "pip install" not in str(caught.value)
    with pytest.raises(BackendNotFoundError, match="Did you mean 'consul'"):
        load_factory("consull")


@pytest.mark.parametrize("name", ["os.path", "acme:Backend", "../acme", "", "Acme"])
def test_nothing_but_a_backend_name_is_looked_up(name: str) -> None:
    with pytest.raises(ConfigError, match="not a backend name"):
        load_factory(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("def broken(:", "SyntaxError"),
        ("", "AttributeError"),
    ],
)
def test_backend_that_fails_to_import_says_whose_it_is(
    distributions: Distributions, text: str, reason: str
) -> None:
    message = refusal(distributions, text)
    assert "'acme' (svcreg-acme 1.0, acme_module:Backend) failed to import" in message
    assert reason in message


def test_two_distributions_with_one_backend_name_are_both_named(
    distributions: Distributions,
) -> None:
    for name in ("svcreg-acme", "acme-for-svcreg"):
        distributions.install(name, {}, {"acme": "acme_module:Backend"})
    with pytest.raises(BackendLoadError, match="acme-for-svcreg and svcreg-acme; uninstall"):
        load_factory("acme")


def test_same_distribution_found_twice_counts_once(distributions: Distributions) -> None:
    for _ in range(2):  # as with an editable installation that is also on sys.path
        distributions.install("svcreg-acme", {"acme_module": GOOD}, {"acme": "acme_module:Backend"})
    assert load_factory("acme").__name__ == "Backend"


@pytest.mark.parametrize(
    "hook", ["svcreg_register", "svcreg_deregister", "svcreg_get", "svcreg_list", "svcreg_watch"]
)
def test_missing_hook_is_named(distributions: Distributions, hook: str) -> None:
    text = textwrap.dedent(GOOD) + f"\ndel Backend.{hook}\n"
    assert f"'acme' lacks {hook}" in refusal(distributions, text)


@pytest.mark.parametrize("misspelt", ["svcreg_regster", "svcrg_register"])
def test_misspelt_hook_names_the_nearest(distributions: Distributions, misspelt: str) -> None:
    message = refusal(distributions, source(("svcreg_register", misspelt)))
    assert f"unknown hook {misspelt}; did you mean svcreg_register?" in message


def test_hook_like_no_other_is_told_the_hooks(distributions: Distributions) -> None:
    message = refusal(distributions, source(("svcreg_register", "svcreg_zzzzzzzzzzzzzzzz")))
    assert "hooks are svcreg_close, svcreg_deregister, " in message
    assert "svcreg_observe" not in message


def test_hook_of_an_observer_is_none_of_a_backend(distributions: Distributions) -> None:
    text = textwrap.dedent(GOOD) + "\nBackend.svcreg_observe = svcreg.hookimpl(lambda self: None)\n"
    assert "unknown hook svcreg_observe" in refusal(distributions, text)


def test_hook_with_a_wrong_argument_names_the_right_ones(distributions: Distributions) -> None:
    message = refusal(distributions, source(("service, ttl", "service, tll")))
    assert "svcreg_register takes 'tll'" in message
    assert "did you mean 'ttl'? It may take service, ttl" in message


def test_hook_that_takes_nothing_says_so(distributions: Distributions) -> None:
    assert "It takes none" in refusal(distributions, source(("list(self)", "list(self, zzz)")))


@pytest.mark.parametrize("arguments", ["service, ttl=90", "service, *, ttl"])
def test_argument_that_would_never_be_filled_in_is_refused(
    distributions: Distributions, arguments: str
) -> None:
    message = refusal(distributions, source(("service, ttl", arguments)))
    assert "svcreg_register would never be given 'ttl'" in message


def test_hook_may_leave_arguments_out(distributions: Distributions) -> None:
    load(distributions, source(("service, ttl", "service")))


def test_unmarked_hook_is_refused(distributions: Distributions) -> None:
    text = source(("@svcreg.hookimpl\n        def svcreg_list", "def svcreg_list"))
    assert "svcreg_list is not marked with @svcreg.hookimpl" in refusal(distributions, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Backend = 5", "names a int"),
        ("Backend = lambda: None", "could not be built: TypeError"),
        ("def Backend(config): raise OSError('no disk')", "could not be built: OSError: no disk"),
        ("def Backend(config): return None", "lacks svcreg_register"),
        ("Backend = dict", "could not be built: TypeError"),
    ],
)
def test_factory_that_gives_no_backend_is_explained(
    distributions: Distributions, text: str, reason: str
) -> None:
    assert reason in refusal(distributions, text)


def test_configuration_that_the_backend_refuses_stays_its_own_error(
    distributions: Distributions,
) -> None:
    text = "import svcreg\ndef Backend(config): raise svcreg.ConfigError('no such option')"
    with pytest.raises(ConfigError, match=r"^no such option$"):
        load(distributions, text)


OBSERVER = """
    import svcreg

    seen = []

    class Observer:
        @svcreg.hookimpl
        def svcreg_observe(self, operation, seconds):
            seen.append((operation, seconds))

    @svcreg.hookimpl
    def svcreg_observe(operation, error):
        seen.append((operation, error))

    class Misspelt:
        @svcreg.hookimpl
        def svcreg_obsrve(self, operation): ...

    class Backend:
        @svcreg.hookimpl
        def svcreg_get(self, name): ...

    class Failing:
        def __init__(self):
            raise RuntimeError("no metrics here")
"""


def install_observers(distributions: Distributions, *attributes: str) -> None:
    points = {f"metrics{n}": f"observers{attribute}" for n, attribute in enumerate(attributes)}
    distributions.install("metrics", {"observers": OBSERVER}, points, group=EXTENSIONS)


def observe(**arguments: object) -> ModuleType:
    manager = load_observers()
    assert manager is not None
    blank = {"operation": "", "backend": "", "service": None, "seconds": 0.0, "error": None}
    manager.hook.svcreg_observe(**{**blank, **arguments})
    return sys.modules["observers"]


def test_no_observer_is_none() -> None:
    assert load_observers() is None


def test_observers_may_be_classes_and_modules(distributions: Distributions) -> None:
    install_observers(distributions, ":Observer", "")
    module = observe(operation="get", seconds=0.5)
    assert sorted(module.seen, key=str) == [("get", 0.5), ("get", None)]


def test_two_extensions_may_have_one_name(distributions: Distributions) -> None:
    install_observers(distributions, ":Observer")
    distributions.install("more", {}, {"metrics0": "observers"}, group=EXTENSIONS)
    assert len(observe().seen) == 2


@pytest.mark.parametrize("broken", [":Misspelt", ":Backend", ":Failing", ":nothing"])
def test_broken_observer_is_left_out_with_a_warning_and_hides_no_other(
    distributions: Distributions, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    install_observers(distributions, broken, ":Observer")
    with caplog.at_level(logging.WARNING, "svcreg.plugins"):
        assert len(observe().seen) == 1
    (record,) = caplog.records
    assert "extension metrics0 is left out" in record.message
