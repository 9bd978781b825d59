"""python -m bench.costs STUDY RECIPE --policies ... --run reports/RECIPE"""

from bench.costs.registry import COSTS
from evaluation.studies.runner import main

if __name__ == "__main__":
    main(COSTS, "bench.costs")
