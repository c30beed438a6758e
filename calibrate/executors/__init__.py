"""Runs the probes of a campaign: in this process, in several on this machine, or on a cluster."""
