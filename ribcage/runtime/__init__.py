"""Runtime: files, progress, processes, random numbers, command-line flags and help; nothing about images.

Imports nothing else of the package. Other packages import whole modules: `from ribcage.runtime import files, progress`.
"""
