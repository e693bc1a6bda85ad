"""The flywheel: traffic of a large model makes a small one that answers part of it as well.

What customers ask repeats. Questions that have an approved answer need no language model to be
answered again: a student finds the answer, a router that was learned from both says when, and the
rest goes to the large model as before. A package with a student is made only when a paired test on
questions that were held out does not find it worse, and it reaches production like any other.
"""
