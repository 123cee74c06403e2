"""Detector and alarm models as AWS IoT Events defines them: pure, no I/O, no clock, no threads."""
