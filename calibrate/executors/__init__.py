"""Runs the probes of a campaign: in this process, or in several on this machine."""
