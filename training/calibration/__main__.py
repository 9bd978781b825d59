"""`python -m training.calibration`: training/calibration/calibrate.py."""

import sys

from training.calibration.calibrate import main, parse

if __name__ == "__main__":
    try:
        main(parse())
    except (ValueError, OSError) as error:
        sys.exit(f"training.calibration: {error}")
