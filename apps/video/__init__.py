"""Recordings and video -> what each person does, over time."""
