"""Scoring actions with a process reward model Q(s, a): in this process, or served."""
