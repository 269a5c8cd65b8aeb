"""The page of a store: everything that it can show in one HTML file, layout by `reports.format.html`."""
