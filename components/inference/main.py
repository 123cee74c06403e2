"""What the nucleus runs: the inference component."""

import sys

from wheeltapper_components.component import main

sys.exit(main("inference", sys.argv[1:]))
