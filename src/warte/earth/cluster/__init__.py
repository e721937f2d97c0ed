"""Clusters of the pixels of large pictures, one answer whatever the number of processes."""

from warte.earth.cluster.run import Clustered, cluster
from warte.earth.cluster.settings import ClusterSettings

__all__ = ["ClusterSettings", "Clustered", "cluster"]
