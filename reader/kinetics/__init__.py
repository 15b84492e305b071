"""Kinetics-skeleton: OpenPose key points as JSON."""
