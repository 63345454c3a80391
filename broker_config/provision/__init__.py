"""Everything that a federation needs to run on a broker that lets nobody in by accident: `fedmq provision`."""
