"""The API's vocabulary: names, condition types and reasons, and what a manifest means."""
