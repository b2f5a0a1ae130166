"""Policies: transformers in process, a server, best-of-N with a PRM, the scripted expert, random commands."""
