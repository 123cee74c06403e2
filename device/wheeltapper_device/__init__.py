"""The device: measures, keeps, sends."""
