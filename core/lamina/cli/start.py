"""Where the program begins: a plain listing is printed at once, everything else is for the whole command line."""

from __future__ import annotations

import os
import sys

from lamina.cli.brief import answer

TYPE_CHECKING = False  # typing takes longer to import than a listing to print
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """The program `lamina`."""
    whole_streams = None not in {sys.stdin, sys.stdout, sys.stderr}  # somebody may have closed one before we began
    text = answer(sys.argv[1:], os.environ) if whole_streams else None
    if text is None:
        from lamina.cli.main import main as whole  # noqa: PLC0415  # what this module is there to avoid

        whole()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # a closed pipe, say
        from lamina.cli.failures import report  # noqa: PLC0415

        sys.exit(report(error, debug=False))
    sys.exit(0)


if __name__ == "__main__":
    main()
