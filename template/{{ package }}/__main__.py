"""`python -m` of this package is its command."""

import sys

from .kit.command.cli import main

sys.exit(main())
