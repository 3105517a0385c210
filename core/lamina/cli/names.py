"""The commands that stand in two places: `lamina NAME`, and docker's longer `lamina image NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HERE: Final = "lamina.cli"

OF_IMAGES: Final[Mapping[str, str]] = {
    "pull": f"{HERE}.registries:pull",
    "push": f"{HERE}.registries:push",
    "load": f"{HERE}.bundles:load",
    "save": f"{HERE}.bundles:save",
    "import": f"{HERE}.bundles:import_",
    "tag": f"{HERE}.images:tag",
    "history": f"{HERE}.images:history",
}

OF_CONTAINERS: Final[Mapping[str, str]] = {
    "run": f"{HERE}.running:run",
    "create": f"{HERE}.running:create",
    "start": f"{HERE}.running:start",
    "stop": f"{HERE}.stopping:stop",
    "restart": f"{HERE}.stopping:restart",
    "kill": f"{HERE}.stopping:kill",
    "pause": f"{HERE}.stopping:pause",
    "unpause": f"{HERE}.stopping:unpause",
    "wait": f"{HERE}.stopping:wait",
    "exec": f"{HERE}.joining:exec_",
    "attach": f"{HERE}.joining:attach",
    "logs": f"{HERE}.joining:logs",
    "diff": f"{HERE}.containers:diff",
    "commit": f"{HERE}.containers:commit",
    "cp": f"{HERE}.files:cp",
    "export": f"{HERE}.files:export",
    "rename": f"{HERE}.containers:rename",
    "rm": f"{HERE}.containers:rm",
}
