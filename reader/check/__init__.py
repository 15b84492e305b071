"""The check of a user's own data before anything is written."""
