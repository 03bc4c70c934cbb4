"""``python -m llava_tui.worker``: see :mod:`llava_tui.worker.main`."""

import sys

from llava_tui.worker.main import main

sys.exit(main())
