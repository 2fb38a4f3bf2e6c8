"""Redis: commands as data, and who sends them to one server, Sentinel or a Cluster."""
