"""The command line from a checkout: ``python -m converter``."""

from __future__ import annotations

from converter.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
