"""Entry point of `python -m inference_marl`."""

import sys
from pathlib import Path

from inference_marl.cli import main

if sys.path[:1] == [str(Path.cwd())] and not Path("inference_marl").is_dir():
    del sys.path[0]  # which Python puts there for -m: as for the installed command, classes are looked for there last

sys.exit(main())
