"""A run of a recipe: `recipe` reads it, `iteration` lists the stages of an iteration, `stage` runs and resumes them."""
