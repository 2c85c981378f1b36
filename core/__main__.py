"""`python -m core COMMAND`: see `core.cli.main`."""

import core.cli.leaving  # noqa: F401 - before what registers itself for the end
from core.cli.main import main

if __name__ == "__main__":
    main()
