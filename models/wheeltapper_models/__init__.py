"""The learning: train, export, score and watch models of a machine's health."""
