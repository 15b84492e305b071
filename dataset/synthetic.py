"""Write synthetic recordings: python dataset/synthetic.py --save_dir DIR

Only a command line. `import dataset.synthetic` imports the package of the same name, which takes
precedence over this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.synthetic.recordings import main  # noqa: E402 - needs the line above
from errors import run_command  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_command(main))
