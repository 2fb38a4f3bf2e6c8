"""Redis Cluster: which server holds which keys, and sending commands there."""
