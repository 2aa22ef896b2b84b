"""Runs the `go` program: its settings, and the commands that the kit needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lab.golden.supply import complaints
from lab.golden.supply.recipe import FLAGS, Component, architecture
from lab.system import environment, process

TIMEOUT = 3600.0
"""Seconds for one command: several times what the longest takes on a slow network or disk."""


@dataclass(frozen=True)
class Go:
    """The pinned `go` program. `proxy` is the module proxy to use; empty: the user's own, or Go's."""

    program: Path
    proxy: str = ""

    def download(self, component: Component, log: Path) -> None:
        """Fetch all modules of a component's pin, verified by its go.sum. Raises CommandFailed."""
        self._run(["mod", "download"], component, log)

    def build(self, component: Component, target: str, output: Path, log: Path) -> None:
        """Build one program of a component into the file `output`. Raises CommandFailed."""
        words = ["build", *FLAGS, "-ldflags", f"-s -w {component.ldflags}".strip()]
        words += ["-tags", component.tags] if component.tags else []
        self._run([*words, "-o", str(output), component.programs[target]], component, log)

    def build_tests(self, component: Component, target: str, output: Path, log: Path) -> None:
        """Build the tests of one package of a component into the program `output`. Raises CommandFailed."""
        words = ["test", "-c", "-vet=off", *FLAGS, "-ldflags", f"-s -w {component.ldflags}".strip()]
        self._run([*words, "-o", str(output), component.programs[target]], component, log)

    def source(self, component: Component, module: str) -> Path:
        """Return the folder of a module's source in Go's module cache."""
        return Path(self._run(["list", "-m", "-f", "{{.Dir}}", module], component).strip())

    def module_cache(self) -> Path:
        """Return Go's module cache: where its sources are."""
        return Path(self._ask("env", "GOMODCACHE").strip())

    def linked(self, program: Path) -> str:
        """Return what a built program says of its modules, as JSON; empty for one that isn't Go's."""
        return self._ask("version", "-m", "-json", str(program), accept=(0, 1))  # 1: not a Go program

    def version(self) -> str:
        """Return what `go version` says."""
        return self._ask("version").strip()

    def _ask(self, *words: str, accept: Collection[int] = (0,)) -> str:
        # Its own folder has no go.mod, which could ask for another Go than this one.
        return process.run(
            [self.program, *words],
            cwd=self.program.parent,
            env=self._home() | {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"},
            timeout=60,
            accept=accept,
        ).stdout

    def _run(self, words: list[str], component: Component, log: Path | None = None) -> str:
        with complaints.explained():
            return process.run(
                [self.program, *words],
                cwd=component.pin,
                env=self._home() | settings(component) | ({"GOPROXY": self.proxy} if self.proxy else {}),
                log=log,
                timeout=TIMEOUT,
            ).stdout

    def _home(self) -> dict[str, str]:
        """What the user has set of GO, and its own standard library."""
        return environment.chosen(environment.GO) | {"GOROOT": str(self.program.parents[1])}


def settings(component: Component) -> dict[str, str]:
    """Return the environment that determines a program, whatever the host's own settings are.

    Where modules come from and where they are cached (GOPROXY, GOMODCACHE, GOCACHE) is the user's
    choice and stays as it is: go.sum decides what is in them.
    """
    return {
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "GOOS": "linux",
        "GOARCH": architecture(),
        "GOAMD64": "v1",
        "GOARM64": "v8.0",
        "GOFIPS140": "off",
        "CGO_ENABLED": "1" if component.cgo else "0",
        "CC": "gcc",
    }
