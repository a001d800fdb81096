"""`python -m ribcage` is `ribcage`."""

import sys

from ribcage.cli import main

sys.exit(main())
