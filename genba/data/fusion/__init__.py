"""Sources of different rates, aligned by time into the rows of one line.

For every row of `data.source`, the newest value of each joined column that is not newer than the
row (the future is never looked at) and not older than the tolerance; or the mean of the values
within the tolerance. What finds no partner is missing and counted.
"""
