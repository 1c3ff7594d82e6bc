"""`python -m inference_marl.cli`."""

import sys

from inference_marl.cli import main

sys.exit(main())
