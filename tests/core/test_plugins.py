"""Plugins: found without being imported, loaded by name, and blamed by the name of their distribution."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina import plugins
from lamina.errors import ConfigError, DriverNotFound
from lamina.events import Event

DRIVER = """
from lamina.driver import Driver, hookimpl
class D(Driver):
    name = {name!r}
    def prepare(self, layer): ...
    def remove(self, layer_id): ...
    def layers(self): return set()
    def mounts(self, layer): return ()
@hookimpl
def lamina_driver():
    return D
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on the path: its entry points, and one module."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def put(distribution: str, group: str, name: str, module: str, text: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
        (tmp_path / f"{module}.py").write_text(text)
        _forget()

    _forget()
    yield put
    _forget()
    for module in set(sys.modules) - before:
        if module.startswith("odd_"):
            del sys.modules[module]


def _forget() -> None:
    plugins._all_points.cache_clear()  # noqa: SLF001
    plugins._points.cache_clear()  # noqa: SLF001  # one process sees one set of plugins; a test installs some
    plugins._observers.cache_clear()  # noqa: SLF001


def test_names_are_listed_without_importing_anything() -> None:
    code = (
        "import sys; from lamina.plugins import installed; names = installed(); "
        "print(*names); print([name for name in sys.modules if name.startswith('lamina_')])"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")

    assert {"overlay", "vfs"} <= set(told[0].split())
    assert told[1] == "[]"


def test_a_driver_is_loaded_by_its_name(install: Install) -> None:
    install("odd-one", "lamina.drivers", "odd", "odd_one", DRIVER.format(name="odd"))

    assert plugins.load_driver("odd").name == "odd"
    assert ("odd", "odd-one 1.0") in {(each.name, each.distribution) for each in plugins.origins()}


def test_an_unknown_name_lists_those_that_are_installed() -> None:
    with pytest.raises(DriverNotFound, match=r"no plugin offers 'odd'; installed: .*vfs"):
        plugins.load_driver("odd")


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("odd-one", "lamina.drivers", "odd", "odd_one", DRIVER.format(name="odd"))
    install("odd-two", "lamina.drivers", "odd", "odd_two", DRIVER.format(name="odd"))

    with pytest.raises(ConfigError, match=r"odd-one 1\.0 and odd-two 1\.0"):
        plugins.load_driver("odd")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("raise SystemError('at import')", "at import"),
        ("def lamina_driver(): return object", "gave no Driver"),
        ("from lamina.driver import hookimpl\n@hookimpl\ndef lamina_driver(): return 3", "gave no Driver"),
        ("from lamina.driver import hookimpl\n@hookimpl\ndef lamina_driver(): 1 / 0", "ZeroDivisionError"),
        ("from lamina.driver import hookimpl\n@hookimpl\ndef lamina_drivre(): ...", "lamina_drivre"),
        (DRIVER.format(name="other"), "calls itself 'other'"),
    ],
)
def test_a_broken_plugin_is_blamed_by_name(install: Install, text: str, complaint: str) -> None:
    install("odd-one", "lamina.drivers", "odd", "odd_one", text)

    with pytest.raises(ConfigError, match=rf"'odd' of odd-one 1\.0.*{complaint}"):
        plugins.load_driver("odd")


def test_a_broken_plugin_hides_no_other(install: Install) -> None:
    install("odd-one", "lamina.drivers", "odd", "odd_one", "1 / 0")

    assert plugins.load_driver("vfs").name == "vfs"
    assert "odd" in plugins.installed()


def test_observers_hear_of_changes(install: Install) -> None:
    heard = "heard = []\nfrom lamina.driver import hookimpl\n@hookimpl\ndef lamina_changed(event): heard.append(event)"
    install("odd-watcher", "lamina.plugins", "watcher", "odd_watcher", heard)

    plugins.tell_observers(Event("remove", "key", "vfs"))

    import odd_watcher  # type: ignore[import-not-found]  # noqa: PLC0415  # it was written a moment ago

    assert odd_watcher.heard == [Event("remove", "key", "vfs")]
