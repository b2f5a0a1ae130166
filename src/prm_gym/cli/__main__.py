"""`python -m prm_gym.cli` is `prm-gym`."""

import sys

from prm_gym.cli import main

sys.exit(main())
