"""What the nucleus runs: the detectors component."""

import sys

from wheeltapper_components.component import main

sys.exit(main("detectors", sys.argv[1:]))
