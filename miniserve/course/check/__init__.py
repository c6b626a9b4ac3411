"""Questions, the ways to ask and judge them, and the verdict a learner reads."""
