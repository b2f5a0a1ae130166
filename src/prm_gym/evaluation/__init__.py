"""How good a policy is (success), how good Q is (`prm_quality`, `ranking`), and 95% intervals of both."""
