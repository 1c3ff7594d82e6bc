"""`python -m inference_marl`."""

import sys

from inference_marl.cli import main

sys.exit(main())
