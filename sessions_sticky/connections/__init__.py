"""Redis: commands as data, and clients for one server, Sentinel and Cluster."""
