"""`python -m trunkline`: the same as `trunkline`."""

import sys

from trunkline.cli import main

sys.exit(main())
