"""Raw recordings -> clips: finding files, parsing them, choosing persons, normalising."""
