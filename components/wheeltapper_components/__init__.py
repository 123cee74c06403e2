"""The gateway: decides locally, on Greengrass or without it."""
