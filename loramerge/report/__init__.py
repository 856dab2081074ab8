"""Pages and decks of what was merged, evaluated and searched: one HTML file each, complete in itself."""
