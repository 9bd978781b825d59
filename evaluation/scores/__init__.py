"""By which numbers a gate could judge a query (docs/results/gate-scores.md)."""
