"""`lamina image …` and `lamina container …`: the same commands under docker's longer names."""

from __future__ import annotations

from lamina.cli.lazy import LazyGroup

_HERE = "lamina.cli"

image = LazyGroup(
    "image",
    help="Work with images.",
    sections={
        "Commands": {
            "ls": f"{_HERE}.images:images",
            "pull": f"{_HERE}.registries:pull",
            "push": f"{_HERE}.registries:push",
            "load": f"{_HERE}.bundles:load",
            "save": f"{_HERE}.bundles:save",
            "import": f"{_HERE}.bundles:import_",
            "tag": f"{_HERE}.images:tag",
            "history": f"{_HERE}.images:history",
            "inspect": f"{_HERE}.inspect:inspect_image",
            "mount": f"{_HERE}.mounting:mount_image",
            "umount": f"{_HERE}.mounting:umount",
            "verify": f"{_HERE}.space:verify",
            "prune": f"{_HERE}.space:prune",
            "rm": f"{_HERE}.images:rmi",
        }
    },
)

container = LazyGroup(
    "container",
    help="Work with containers.",
    sections={
        "Commands": {
            "run": f"{_HERE}.running:run",
            "create": f"{_HERE}.running:create",
            "start": f"{_HERE}.running:start",
            "stop": f"{_HERE}.stopping:stop",
            "restart": f"{_HERE}.stopping:restart",
            "kill": f"{_HERE}.stopping:kill",
            "pause": f"{_HERE}.stopping:pause",
            "unpause": f"{_HERE}.stopping:unpause",
            "wait": f"{_HERE}.stopping:wait",
            "exec": f"{_HERE}.joining:exec_",
            "attach": f"{_HERE}.joining:attach",
            "logs": f"{_HERE}.joining:logs",
            "cleanup": f"{_HERE}.stopping:cleanup",
            "ls": f"{_HERE}.containers:ps",
            "diff": f"{_HERE}.containers:diff",
            "commit": f"{_HERE}.containers:commit",
            "cp": f"{_HERE}.files:cp",
            "export": f"{_HERE}.files:export",
            "inspect": f"{_HERE}.inspect:inspect_container",
            "mount": f"{_HERE}.mounting:mount_container",
            "umount": f"{_HERE}.mounting:umount",
            "rename": f"{_HERE}.containers:rename",
            "rm": f"{_HERE}.containers:rm",
        }
    },
)
