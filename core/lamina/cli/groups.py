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
            "create": f"{_HERE}.containers:create",
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
