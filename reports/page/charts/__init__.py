"""Charts of the page: each module turns rows into blocks of `reports.format.html`."""
