"""Redis Cluster: the slot map, and sending commands to the nodes of their keys."""
