"""Why masks are as they are: exact attribution, error budgets against ground truth, comparison of models."""
