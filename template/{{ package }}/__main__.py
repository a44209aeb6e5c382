"""`python -m` of this package is its command."""

import sys

from .cli import main

sys.exit(main())
