"""The paper's findings, measured again: `python -m experiments`, or `make findings`.

`variants` runs variants of a recipe, `findings` defines what each finding compares, and `changes` what its variants
change in the recipe. `seed_records` keeps the results of each seed, `prm_gym.evaluation.intervals` computes rates and
paired gains with intervals, `chart` draws them.
"""
