"""The device: `core` decides, `trainer` trains, `outbox` writes to the disk, `service` is the loop between them."""
