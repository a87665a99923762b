"""Accuracy and speed on real pairs: `python -m benchmark run --data DIR` and `… report`, from the folder Testing.

A method is a command that leaves `transform.h5` (ITK, fixed → moving) and, where it has one, `inverse.h5` in a folder.
It runs in a process of its own, files to files, and everything it needs counts: start, imports, affine stage, output.
"""
