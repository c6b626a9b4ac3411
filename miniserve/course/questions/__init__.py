"""The questions of each chapter: what is asked, how truth is computed, which mistakes are known.

Never sent into a learner's kernel when grading.
"""
