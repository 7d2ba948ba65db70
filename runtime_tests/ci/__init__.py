"""What a team's CI does with a validation: a comment for the pull request, the baseline, its history as a picture."""
