"""python -m evaluation.studies STUDY RECIPE --policies ... --run reports/RECIPE"""

from evaluation.studies.registry import STUDIES
from evaluation.studies.runner import main

if __name__ == "__main__":
    main(STUDIES, "evaluation.studies")
