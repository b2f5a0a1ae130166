"""The paper's findings, measured again: `python -m prm_gym.findings`, or `make findings`.

`lab` runs variants of a recipe, `experiments` says what each finding compares, `records` keeps what it was for a seed,
`prm_gym.estimates` turns episodes into rates and paired gains with intervals, `chart` draws them.
"""
