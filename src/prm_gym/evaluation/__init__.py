"""Evaluation: `success` of a policy, quality of Q (`prm_quality`, `ranking`), and 95% `intervals` of both."""
