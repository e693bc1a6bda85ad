"""Reasons to train a challenger, one file each; the catalog names them."""
