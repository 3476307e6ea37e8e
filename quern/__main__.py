"""The `quern` program; also `python -m quern`."""

from __future__ import annotations

import sys

from .frontends.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
