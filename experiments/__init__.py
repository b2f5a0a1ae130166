"""The paper's findings, measured again: `python -m experiments`, or `make findings`.

`variants` runs variants of a recipe, `findings` says what each finding compares, `seed_records` keeps what it was for a
seed, `prm_gym.evaluation.intervals` turns episodes into rates and paired gains with intervals, `chart` draws them.
"""
