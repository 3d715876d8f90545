"""The choice among replicas of one version. Pure: replicas plus request facts in, one replica out."""
