"""The aggregator: `core` decides, `store` writes to the disk, `service` is the loop between them and the broker."""
