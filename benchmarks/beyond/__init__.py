"""What makes a data-free ex-model better, one change at a time, and what bounds it (docs/notebook_of_trials.md)."""
