"""Land cover, clusters, anomalies and change in large satellite pictures."""
