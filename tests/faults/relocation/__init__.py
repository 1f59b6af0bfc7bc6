"""A store that moves from storage to storage while a site uses it and its movers are killed."""
